package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/loglimit"
	"heavy-read-api/internal/redisnode"
)

// subscription receives the messages of the channel while it runs, from the node that the replica reads from: when the
// Finder leaves that node, it closes the subscription too.
type subscription struct {
	redis   *redisnode.Finder
	channel string
	turns   *turns
	log     *slog.Logger
	metrics *metrics

	live  atomic.Uint64 // number of the connection that Redis has confirmed; 0 while there is none
	count uint64        // number of confirmed connections so far
	err   atomic.Value  // string: why the last connection ended or failed

	lost loglimit.Limit

	mu      sync.Mutex // guards current
	current *redis.PubSub
}

// Pauses between attempts to subscribe.
const (
	minRedial = 20 * time.Millisecond
	maxRedial = time.Second
)

// run subscribes again and again until ctx is done.
func (s *subscription) run(ctx context.Context) {
	pause := minRedial
	for ctx.Err() == nil {
		began := time.Now()
		err := s.receive(ctx)
		s.live.Store(0)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxRedial {
			pause = minRedial
		}
		s.err.Store(err.Error())
		s.lost.Log(s.log.Warn, time.Now(), "subscription lost; catching up from the log until it is back", "channel", s.channel, "err", err, "redial_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRedial)
	}
}

// receive subscribes once and passes the messages on until the connection ends. It calls Receive without a
// timeout, because ReceiveTimeout loses the protocol's framing when it expires inside a message. Closing the PubSub from
// another goroutine ends Receive at once, even on a black-holed link.
func (s *subscription) receive(ctx context.Context) error {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return err
	}
	ps := n.Subscribe(ctx) // connects with the first command
	defer ps.Close()
	s.setCurrent(ps)
	defer s.setCurrent(nil)
	stop := context.AfterFunc(ctx, func() { _ = ps.Close() })
	defer stop()
	// A server that accepts the connection and never replies must not block the subscription for ever.
	confirmed := time.AfterFunc(stepTimeout, func() { _ = ps.Close() })
	defer confirmed.Stop()

	if err := ps.Subscribe(ctx, s.channel); err != nil {
		s.redis.ReportError(n, err)
		return fmt.Errorf("subscribe: %w", err)
	}
	for {
		m, err := ps.Receive(ctx)
		if err != nil {
			s.redis.ReportError(n, err)
			return fmt.Errorf("receive: %w", err)
		}
		switch m := m.(type) {
		case *redis.Subscription:
			// Receive reconnects by itself; only another confirmation shows it.
			if m.Kind == "subscribe" {
				confirmed.Stop()
				s.count++
				s.live.Store(s.count)
				s.turns.inbox.requestCatchUp(catchUpSubscribed)
			}
		case *redis.Message:
			if dropped := s.turns.receive(m.Payload); dropped > 0 {
				s.metrics.messages[messageDropped].Add(float64(dropped))
			}
		}
	}
}

func (s *subscription) setCurrent(ps *redis.PubSub) {
	s.mu.Lock()
	s.current = ps
	s.mu.Unlock()
}

// redial closes a silent connection; run makes a new one.
func (s *subscription) redial() {
	s.metrics.resubscriptions.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		_ = s.current.Close()
	}
}
