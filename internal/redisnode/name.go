package redisnode

import (
	"context"
	"fmt"
	"net"
)

// name is the source for a single configured address: the addresses that its host name resolves to.
type name struct{ cfg *Config }

func (s *name) close() {}

func (s *name) candidates(ctx context.Context) ([]candidate, error) {
	addr := s.cfg.Addrs[0]
	if network(addr) == "unix" {
		return []candidate{{addr: addr}}, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []candidate{{addr: addr, name: host}}, nil
	}
	ips, err := s.cfg.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var found []candidate
	for _, ip := range ips {
		found = append(found, candidate{addr: net.JoinHostPort(ip, port), name: host})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("look up %s: no address found", host)
	}
	return found, nil
}
