package gateway

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A reader that has never been ready is checked at a tenth of the interval, and then at the interval.
func TestNewReaderIsCheckedMoreOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Second
		p := newTestNodes("a:1")
		n := p.list[0]
		began := time.Now()
		loading := 250 * time.Millisecond
		var probed []time.Duration
		c := newChecker(interval, interval, p.checked)
		c.probe = func(context.Context, string) error {
			at := time.Since(began)
			probed = append(probed, at)
			if at < loading || at > 2*interval && at < 5*interval {
				return errors.New("503 loading")
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		c.run(ctx, n)
		const ms = time.Millisecond
		// After two failed checks it needs two passed ones, so it joins the rotation at 400 ms. When it fails later, the
		// interval stays the same.
		want := []time.Duration{0, 100 * ms, 200 * ms, 300 * ms, 400 * ms, 1400 * ms, 2400 * ms, 3400 * ms}
		if !slices.Equal(probed, want) {
			t.Errorf("probed at %v, want %v", probed, want)
		}
		if len(p.view.Load().ready) != 0 {
			t.Error("the reader is still in rotation after two failed checks")
		}
	})
}

// A check that times out counts only if the reader answers no requests either: a reader that hangs is ejected, one that
// clients keep busy is not.
func TestTimedOutCheckOfABusyReader(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const interval = time.Second
			p := newTestNodes("a:1")
			n := p.list[0]
			p.checked(n, nil)
			c := newChecker(interval, interval, p.checked)
			c.probe = func(ctx context.Context, _ string) error {
				if time.Sleep(interval / 2); busy { // fake time
					n.answered()
				}
				time.Sleep(interval / 2)
				return context.DeadlineExceeded
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*interval)
			defer cancel()
			c.run(ctx, n)
			if ready := len(p.view.Load().ready) == 1; ready != busy {
				t.Errorf("busy: %v, in rotation: %v", busy, ready)
			}
		})
	}
}

// The checks of a reader also close its expired idle connections.
func TestChecksCloseIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestNodes("a:1")
		p.pools.most = 1
		n := p.list[0]
		u, closed := newUpstream()
		n.pool.put(u)
		c := newChecker(time.Second, time.Second, p.checked)
		c.probe = func(context.Context, string) error { return nil }
		for _, test := range []struct {
			after  time.Duration
			closed bool
		}{{idleTimeout - time.Second, false}, {3 * time.Second, true}} {
			ctx, cancel := context.WithTimeout(t.Context(), test.after)
			c.run(ctx, n)
			if cancel(); closed() != test.closed {
				t.Errorf("%v later: closed is %v", test.after, !test.closed)
			}
		}
	})
}
