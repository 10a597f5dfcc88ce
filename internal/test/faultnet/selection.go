package faultnet

import (
	"bytes"
	"time"
)

// Conn describes a connection for a Filter.
type Conn struct {
	Index int    // number of the connection in the order of acceptance, from 0
	Head  []byte // first bytes from the client so far, at most 4 KiB; a Filter must not modify or keep them
}

// Filter selects connections. The proxy calls it for every chunk of bytes, because the first bytes of a
// connection reveal its purpose; it must be fast and must not call the proxy.
type Filter func(Conn) bool

// Contains selects the connections whose first bytes contain text, ignoring case. Contains("subscribe")
// selects the subscriptions of a Redis client.
func Contains(text string) Filter {
	lower := bytes.ToLower([]byte(text))
	return func(c Conn) bool { return bytes.Contains(bytes.ToLower(c.Head), lower) }
}

// Not selects the connections that f does not select.
func Not(f Filter) Filter {
	return func(c Conn) bool { return !f(c) }
}

// Selection is a set of a proxy's connections, existing and future ones, with the faults that apply to
// them. A connection in several Selections has the faults of all, with the longest delay and the lowest
// rate.
type Selection struct {
	proxy  *Proxy
	filter Filter
	faults [2]faults // by direction; guarded by proxy.mu
}

// faults are the faults of one direction.
type faults struct {
	blackHole bool
	stall     bool
	delay     time.Duration
	rate      int // bytes per second, 0 for no limit
}

// Only returns the Selection of the connections that filter selects.
func (p *Proxy) Only(filter Filter) *Selection {
	s := &Selection{proxy: p, filter: filter}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selections = append(p.selections, s)
	return s
}

// BlackHole discards every byte of a direction and the end of its stream, so that the other peer does not
// notice a close. A connection that has lost bytes forwards nothing in that direction any more, even after
// the fault is turned off, because the stream would be corrupt. See Heal.
func (s *Selection) BlackHole(d Direction, on bool) {
	s.set(d, func(f *faults) { f.blackHole = on })
}

// Stall stops reading from the sender of a direction, which causes back-pressure once the kernel's buffers
// are full. No bytes are lost.
func (s *Selection) Stall(d Direction, on bool) {
	s.set(d, func(f *faults) { f.stall = on })
}

// Delay delays each byte of a direction and keeps the order. The new delay also applies to bytes that are
// already waiting. 0 ends it.
func (s *Selection) Delay(d Direction, delay time.Duration) {
	s.set(d, func(f *faults) { f.delay = delay })
}

// Throttle limits the rate of each connection in a direction. 0 ends it.
func (s *Selection) Throttle(d Direction, bytesPerSecond int) {
	s.set(d, func(f *faults) { f.rate = max(0, bytesPerSecond) })
}

// Cut closes the current connections normally. Bytes that are still in the proxy are lost.
func (s *Selection) Cut() {
	for _, c := range s.connections() {
		c.close()
	}
}

// Reset closes the current connections with RST.
func (s *Selection) Reset() {
	for _, c := range s.connections() {
		c.reset()
	}
}

// Connections returns the current number of connections that have reached the target.
func (s *Selection) Connections() int { return len(s.connections()) }

func (s *Selection) connections() []*conn {
	return s.proxy.find(func(c *conn) bool { return s.filter(c.info()) })
}

func (s *Selection) set(d Direction, change func(*faults)) {
	s.proxy.mu.Lock()
	defer s.proxy.mu.Unlock()
	change(&s.faults[d])
	s.proxy.wake()
}

// faultsOf returns the current faults of a direction of c, and a channel that is closed when they may have
// changed.
func (p *Proxy) faultsOf(c *conn, d Direction) (faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := faults{blackHole: c.dead[d]}
	for _, s := range p.selections {
		f := s.faults[d]
		if f == (faults{}) || !s.filter(c.info()) {
			continue
		}
		sum.blackHole = sum.blackHole || f.blackHole
		sum.stall = sum.stall || f.stall
		sum.delay = max(sum.delay, f.delay)
		if f.rate > 0 && (sum.rate == 0 || f.rate < sum.rate) {
			sum.rate = f.rate
		}
	}
	return sum, p.changed
}
