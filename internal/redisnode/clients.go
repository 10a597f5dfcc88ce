package redisnode

import (
	"net"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// clients keeps a client for each server that is asked about others. Its methods may be called by many
// goroutines.
type clients struct {
	options func(addr string) *redis.Options

	mu sync.Mutex // guards of
	of map[string]*redis.Client
}

func newClients(options func(addr string) *redis.Options) *clients {
	return &clients{options: options, of: make(map[string]*redis.Client)}
}

func (s *clients) get(addr string) *redis.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[addr]
	if c == nil {
		c = redis.NewClient(s.options(addr))
		s.of[addr] = c
	}
	return c
}

// keep closes the clients of all other servers.
func (s *clients) keep(addrs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, c := range s.of {
		if !slices.Contains(addrs, addr) {
			_ = c.Close()
			delete(s.of, addr)
		}
	}
}

// host returns the host of host:port.
func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	return h
}
