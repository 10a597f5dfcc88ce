package faultnet

import (
	"bytes"
	"time"
)

// Conn is what a Filter sees of a connection.
type Conn struct {
	Index int    // 0 for the first that was accepted
	Head  []byte // the first bytes from the client so far, at most 4 KiB; not to be changed or kept
}

// Filter chooses connections. It is asked again for every chunk of bytes, since
// what a connection is for shows only after some of them: it must be quick, and
// must not call the proxy.
type Filter func(Conn) bool

// Contains chooses the connections whose first bytes hold text, in upper or
// lower case. Contains("subscribe") is the subscriptions of a Redis client.
func Contains(text string) Filter {
	lower := bytes.ToLower([]byte(text))
	return func(c Conn) bool { return bytes.Contains(bytes.ToLower(c.Head), lower) }
}

// Not chooses the connections that f does not.
func Not(f Filter) Filter {
	return func(c Conn) bool { return !f(c) }
}

// Selection is some of a proxy's connections, existing and new ones, and the
// faults they have. A connection in several selections has the faults of all:
// the longest delay, the lowest rate.
type Selection struct {
	proxy  *Proxy
	filter Filter
	faults [2]faults // by direction; guarded by proxy.mu
}

// faults are what is wrong with one direction.
type faults struct {
	blackHole bool
	stall     bool
	delay     time.Duration
	rate      int // bytes per second, 0 for no limit
}

// Only returns the selection of the connections that filter chooses.
func (p *Proxy) Only(filter Filter) *Selection {
	s := &Selection{proxy: p, filter: filter}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.selections = append(p.selections, s)
	return s
}

// BlackHole swallows every byte of a direction, and its end too: a peer that
// closes is not noticed on the other side. A connection that has lost something
// never passes bytes in that direction again, for they would not be the ones
// the receiver expects; turning the fault off saves only those that lost
// nothing. See Heal.
func (s *Selection) BlackHole(d Direction, on bool) {
	s.set(d, func(f *faults) { f.blackHole = on })
}

// Stall stops reading from a direction's sender, which so feels back-pressure
// once the kernel's buffers are full. Nothing is lost.
func (s *Selection) Stall(d Direction, on bool) {
	s.set(d, func(f *faults) { f.stall = on })
}

// Delay holds each byte of a direction back for some time; order stays. Bytes
// that wait already are measured by the new delay too. 0 ends it.
func (s *Selection) Delay(d Direction, delay time.Duration) {
	s.set(d, func(f *faults) { f.delay = delay })
}

// Throttle limits each connection's rate in a direction. 0 ends it.
func (s *Selection) Throttle(d Direction, bytesPerSecond int) {
	s.set(d, func(f *faults) { f.rate = max(0, bytesPerSecond) })
}

// Cut closes the connections that exist now, as their peers would. Bytes that
// are still in the proxy are lost.
func (s *Selection) Cut() {
	for _, c := range s.connections() {
		c.close()
	}
}

// Reset closes the connections that exist now with RST.
func (s *Selection) Reset() {
	for _, c := range s.connections() {
		c.reset()
	}
}

// Connections is how many connections exist now: those with a target.
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

// faultsOf is what c suffers in a direction now, and the channel that is closed
// when that may have changed.
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
