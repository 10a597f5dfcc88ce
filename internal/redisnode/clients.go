package redisnode

import (
	"net"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// clients keeps one client per address, for queries to Sentinels, cluster nodes and upstream servers. It is
// safe for concurrent use.
type clients struct {
	options func(addr string) *redis.Options

	mu     sync.Mutex // guards byAddr
	byAddr map[string]*redis.Client
}

func newClients(options func(addr string) *redis.Options) *clients {
	return &clients{options: options, byAddr: make(map[string]*redis.Client)}
}

func (s *clients) get(addr string) *redis.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.byAddr[addr]
	if c == nil {
		c = redis.NewClient(s.options(addr))
		s.byAddr[addr] = c
	}
	return c
}

// closeExcept closes the clients of all servers but addrs.
func (s *clients) closeExcept(addrs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, c := range s.byAddr {
		if !slices.Contains(addrs, addr) {
			_ = c.Close()
			delete(s.byAddr, addr)
		}
	}
}

// host returns the host part of host:port.
func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	return h
}
