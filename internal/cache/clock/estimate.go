// Package clock estimates the clock of Redis.
package clock

import (
	"sync"
	"time"
)

// Estimate estimates Redis's clock as closely as its replies allow, so that times of different hosts can be compared
// even if their own clocks differ. It must not be used for deadlines, because its error can have either sign.
//
// A reply gives two bounds: Redis read its clock after the request was sent and before the reply arrived. The bounds of
// several replies narrow each other, apart from the drift between them. Bounds that contradict each other mean that the
// clock was set, or that another server replied: then the newer ones count. Any goroutine may call the methods.
type Estimate struct {
	base time.Time // local time from which monotonic durations are measured

	mu        sync.Mutex    // guards all fields below
	low, high time.Duration // bounds of Redis's Unix time at base
	at        time.Time     // local time of the last reply; zero before the first one
}

// driftPerSecond is the largest drift between two clocks in a second.
const driftPerSecond = 100 * time.Microsecond

// New returns an Estimate without replies.
func New() *Estimate { return &Estimate{base: time.Now()} }

// Observe adds a reply with Redis's Unix time in microseconds. The local times are those at which the request was sent
// and the reply was received.
func (c *Estimate) Observe(sent, received time.Time, micros int64) {
	server := time.Duration(micros) * time.Microsecond
	low, high := server-received.Sub(c.base), server+time.Microsecond-sent.Sub(c.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() {
		drift := time.Duration(received.Sub(c.at).Seconds() * float64(driftPerSecond))
		if l, h := max(low, c.low-drift), min(high, c.high+drift); l <= h {
			low, high = l, h
		}
	}
	c.low, c.high, c.at = low, high, received
}

// Now returns an estimate of Redis's time at the local time t, and t itself before the first reply.
func (c *Estimate) Now(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return t
	}
	return time.Unix(0, int64(c.low+(c.high-c.low)/2+t.Sub(c.base)))
}
