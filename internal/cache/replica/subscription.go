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

// subscription listens on the channel for as long as it runs, on the node from which the replica
// reads: when the Finder leaves that node, it closes the subscription too.
type subscription struct {
	redis   *redisnode.Finder
	channel string
	inbox   *inbox
	log     *slog.Logger
	metrics *metrics

	// live is the number of the connection that Redis confirmed, 0 while there is none.
	live  atomic.Uint64
	count uint64
	err   atomic.Value // string: why the last connection ended, or could not be had

	lost loglimit.Limit

	mu      sync.Mutex // guards current
	current *redis.PubSub
}

// Pause between attempts to subscribe.
const (
	minRedial = 20 * time.Millisecond
	maxRedial = time.Second
)

// run blocks until ctx is done.
func (s *subscription) run(ctx context.Context) {
	pause := minRedial
	for ctx.Err() == nil {
		began := time.Now()
		err := s.listen(ctx)
		s.live.Store(0)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxRedial {
			pause = minRedial
		}
		s.err.Store(err.Error())
		s.lost.Log(s.log.Warn, time.Now(), "subscription lost", "channel", s.channel, "err", err, "redial_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRedial)
	}
}

// listen subscribes once and passes messages on until the connection ends. One goroutine sits in
// Receive, without a timeout: ReceiveTimeout loses the protocol's sync when it expires inside a
// message. Closing the PubSub from outside frees it at once, even from a black hole.
func (s *subscription) listen(ctx context.Context) error {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return err
	}
	ps := n.Subscribe(ctx) // dials with the first command
	defer ps.Close()
	s.set(ps)
	defer s.set(nil)
	stop := context.AfterFunc(ctx, func() { _ = ps.Close() })
	defer stop()
	// A server that accepts and says nothing must not hold up the subscription for ever.
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
			// Receive redials by itself, and then a new confirmation is all that shows it.
			if m.Kind == "subscribe" {
				confirmed.Stop()
				s.count++
				s.live.Store(s.count)
				s.inbox.resync("subscribed")
			}
		case *redis.Message:
			s.metrics.messages.WithLabelValues("dropped").Add(float64(s.inbox.push(m.Payload)))
		}
	}
}

func (s *subscription) set(ps *redis.PubSub) {
	s.mu.Lock()
	s.current = ps
	s.mu.Unlock()
}

// redial ends the current connection; run makes a new one.
func (s *subscription) redial(reason string) {
	s.metrics.resubscriptions.WithLabelValues(reason).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		_ = s.current.Close()
	}
}
