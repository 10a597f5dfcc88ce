package fanout

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// deliveryLimit is the time by which the last write must have been delivered to every subscriber.
const deliveryLimit = 5 * time.Second

// audience is all subscribers of a measurement. Two of them are timed.
type audience struct {
	timed  []*timed
	others *subscribers
}

// newAudience subscribes n times, distributed evenly over the servers. The first and the last subscriber are timed, on the
// first server. The caller closes the audience.
func newAudience(ctx context.Context, servers []string, n int) (_ *audience, err error) {
	a := new(audience)
	defer func() {
		if err != nil {
			_ = a.close()
		}
	}()
	add := func() error {
		t, err := newTimed(ctx, servers[0])
		if err == nil {
			a.timed = append(a.timed, t)
		}
		return err
	}
	if n > 0 {
		if err = add(); err != nil {
			return nil, err
		}
	}
	if a.others, err = subscribe(ctx, servers, max(0, n-2)); err != nil {
		return nil, err
	}
	if n > 1 {
		if err = add(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// counts returns the number of writes that each timed subscriber has received.
func (a *audience) counts() (n []int) {
	for _, t := range a.timed {
		n = append(n, t.count())
	}
	return n
}

// delays returns the sorted delays of the timed subscribers, from one number of writes of each to another.
func (a *audience) delays(from, to []int) (all []time.Duration) {
	for i, t := range a.timed {
		t.mu.Lock()
		all = append(all, t.times[from[i]:to[i]]...)
		t.mu.Unlock()
	}
	slices.Sort(all)
	return all
}

// delivered blocks until every subscriber has received all writes.
func (a *audience) delivered(ctx context.Context, writes int) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		missing := 0
		for _, n := range a.counts() {
			missing = max(missing, writes-n)
		}
		least, most := a.others.received()
		if missing == 0 && least == most {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v a subscriber lacks %d of %d writes, and another one %d of %d bytes", deliveryLimit, missing, writes, most-least, most)
		case <-tick.C:
		}
	}
}

// close closes all subscriptions and returns why one of them had failed.
func (a *audience) close() (err error) {
	if a.others != nil {
		err = a.others.close()
	}
	for _, t := range a.timed {
		err = errors.Join(err, t.close())
	}
	return err
}

// timed is a subscriber that reads every message at once and notes its delay.
type timed struct {
	conn  net.Conn
	ended chan struct{} // closed when receive has returned
	err   error         // why it failed; after ended

	mu    sync.Mutex
	times []time.Duration // guarded by mu
}

func newTimed(ctx context.Context, addr string) (*timed, error) {
	conn, err := dialSubscriber(ctx, addr)
	if err != nil {
		return nil, err
	}
	t := &timed{conn: conn, ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		if err := t.receive(); !errors.Is(err, net.ErrClosed) {
			t.err = fmt.Errorf("receive as a timed subscriber: %w", err)
		}
	}()
	return t, nil
}

// receive reads messages until the connection is closed.
func (t *timed) receive() error {
	in := bufio.NewReaderSize(t.conn, 64<<10)
	prefix := []byte("*3\r\n$7\r\nmessage\r\n" + bulk(protocol.DefaultChannel) + "$")
	payload := make([]byte, 0, 4<<10)
	var c protocol.Commit
	for {
		header, err := in.Peek(len(prefix))
		if err != nil {
			return err
		}
		if !bytes.Equal(header, prefix) {
			return fmt.Errorf("unexpected reply %q", header)
		}
		_, _ = in.Discard(len(prefix))
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil {
			return err
		}
		payload = slices.Grow(payload[:0], size+2)[:size+2] // with the line break
		if _, err := io.ReadFull(in, payload); err != nil {
			return err
		}
		now := time.Now()
		if err := c.Decode(string(payload[:size])); err != nil {
			return err
		}
		t.mu.Lock()
		for _, r := range c.Records {
			t.times = append(t.times, now.Sub(r.Published))
		}
		t.mu.Unlock()
	}
}

// count returns the number of writes that were received.
func (t *timed) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.times)
}

// close closes the connection and returns why it had failed.
func (t *timed) close() error {
	_ = t.conn.Close()
	<-t.ended
	return t.err
}
