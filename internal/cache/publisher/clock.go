package publisher

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/clock"
	"heavy-read-api/internal/cache/protocol"
)

// serverClock estimates the time of a Redis node between its replies, because the node checks deadlines by its own
// clock. It adds the monotonic time since the last reply, so steps of this host's wall clock have no effect.
//
// A step of the node's clock shows only in its next reply. After a step forward, the node refuses a write that is still
// within its deadline, and the refusal carries the new time. After a step back, a write may take effect after its
// deadline, by at most the step; readings expire to keep that window short. A failover behind the same address, to a
// server with another clock, has the same effect.
type serverClock struct {
	now      func() time.Time // clock of this host; its result has a monotonic reading
	log      string           // key of the log in Redis
	last     atomic.Pointer[serverTime]
	measured *clock.Estimate // estimate for timestamps, from the same replies
}

// maxReadingAge is the time for which a reading is used. After a longer pause, a write takes one more round trip.
const maxReadingAge = 5 * time.Second

// serverTime is a reading of a node's clock.
type serverTime struct {
	node   *redis.Client
	at     time.Time     // local time at which the reply arrived
	micros int64         // Unix time of the node when it replied, in microseconds
	head   protocol.Head // head of the node's log at or before the reply; without an epoch
}

// millis returns the node's Unix time at the local time t, in milliseconds. It is too low by the time that the reply took to
// arrive. That is the safe side, because it shortens deadlines.
func (s serverTime) millis(t time.Time) int64 {
	return (s.micros + t.Sub(s.at).Microseconds()) / 1000
}

// read returns a reading of n's clock. It blocks for a round trip, bounded by ctx, when the last reading is of another node
// or too old.
func (c *serverClock) read(ctx context.Context, n *redis.Client) (serverTime, error) {
	if last := c.last.Load(); last != nil && last.node == n && c.now().Sub(last.at) < maxReadingAge {
		return *last, nil
	}
	sent := c.now()
	pipe := n.Pipeline()
	at, top := pipe.Time(ctx), pipe.XRevRangeN(ctx, c.log, "+", "-", 1)
	if _, err := pipe.Exec(ctx); err != nil && at.Err() != nil {
		return serverTime{}, at.Err()
	}
	return c.set(n, sent, at.Val().UnixMicro(), protocol.LogEnd(top.Val())), nil
}

// set stores the time and the head in a reply of n that has just arrived; the request was sent at the local time sent.
func (c *serverClock) set(n *redis.Client, sent time.Time, micros int64, head protocol.Head) serverTime {
	s := serverTime{node: n, at: c.now(), micros: micros, head: head}
	c.last.Store(&s)
	c.measured.Observe(sent, s.at, micros)
	return s
}

// forget drops the last reading. After an error, another server may answer, with another clock.
func (c *serverClock) forget() { c.last.Store(nil) }
