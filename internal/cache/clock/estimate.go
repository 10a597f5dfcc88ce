package clock

import (
	"sync"
	"time"
)

// Estimate estimates Redis's clock as closely as its replies allow, so that times of different hosts
// can be compared whatever their own clocks say. Deadlines have serverClock, which errs on the safe side.
//
// A reply gives two bounds: Redis read its clock after the request was sent and before the reply arrived.
// Bounds of several replies narrow each other, apart from the drift between them. Bounds that contradict
// each other mean that the clock was set, or that another server answers: then the newer ones count.
type Estimate struct {
	base time.Time // a local time; the monotonic time since then is what is compared

	mu        sync.Mutex    // guards what follows
	low, high time.Duration // bounds of Redis's Unix time at base
	at        time.Time     // local time of the last reply; zero before the first
}

// driftPerSecond is how far two clocks may move apart, in a second.
const driftPerSecond = 100 * time.Microsecond

func New() *Estimate { return &Estimate{base: time.Now()} }

// Observe takes in a reply with Redis's Unix time in microseconds: the local times are those at which the
// request was sent and the reply was received.
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

// Now returns Redis's time at the local time t, which is t itself before the first reply.
func (c *Estimate) Now(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return t
	}
	return time.Unix(0, int64(c.low+(c.high-c.low)/2+t.Sub(c.base)))
}
