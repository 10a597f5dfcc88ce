package fanout

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/internal/cache/protocol"
)

// InFlight is the number of connections that write in a measurement of the capacity, each with one write in flight.
const InFlight = 64

// CapacityConfig describes one measurement of the capacity of a Redis.
type CapacityConfig struct {
	Redis       *lab.Process // has loaded write.lua
	Writes      []protocol.Write
	Subscribers int // at least 2
	Rate        int // writes per second; 0 means no limit
	Duration    time.Duration
}

// Load is what a Redis did within the Duration.
type Load struct {
	Writes int
	Took   time.Duration
	CPU    time.Duration   // CPU time of Redis
	Wait   time.Duration   // how long Redis waited for a core because other processes used it
	Delays []time.Duration // sorted: from when a write is sent to Redis to its delivery
}

// Capacity writes to Redis without a writer, because a writer takes more CPU time per write than Redis with few subscribers.
// It sends the writer's script from InFlight connections. A subscriber that does not receive every write is an error.
func Capacity(ctx context.Context, c CapacityConfig) (*Load, error) {
	a, err := newAudience(ctx, []string{c.Redis.Addr}, c.Subscribers)
	if err != nil {
		return nil, err
	}
	defer a.close()
	w := &writes{addr: c.Redis.Addr, writes: c.Writes, rate: c.Rate, began: time.Now()}
	w.deadline = w.began.Add(2*c.Duration + deliveryLimit)
	writing, end := context.WithCancel(ctx)
	defer end()
	group, writing := errgroup.WithContext(writing)
	for range InFlight {
		group.Go(func() error { return w.run(writing) })
	}
	r := new(Load)
	measured := func() error {
		if err := sleep(writing, c.Duration/8); err != nil { // buffers of the connections grow meanwhile
			return err
		}
		before, err := cpu([]*lab.Process{c.Redis})
		if err != nil {
			return err
		}
		waited := c.Redis.Wait()
		done, from, began := w.done.Load(), a.counts(), time.Now()
		if err := sleep(writing, c.Duration); err != nil {
			return err
		}
		after, err := cpu([]*lab.Process{c.Redis})
		if err != nil {
			return err
		}
		r.CPU, r.Wait = after[0]-before[0], c.Redis.Wait()-waited
		r.Writes, r.Took = int(w.done.Load()-done), time.Since(began)
		r.Delays = a.delays(from, a.counts())
		return nil
	}()
	end()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if measured != nil {
		return nil, measured
	}
	if err := a.delivered(ctx, int(w.done.Load())); err != nil {
		return nil, err
	}
	return r, a.close()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// writes sends calls of write.lua, each with one write.
type writes struct {
	addr            string
	writes          []protocol.Write
	rate            int // 0 means no pauses
	began, deadline time.Time
	next            atomic.Int64 // number of writes that were begun
	done            atomic.Int64 // number of writes that were answered
}

// run writes on one connection until ctx is done.
func (w *writes) run(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", w.addr)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("write to Redis: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(w.deadline)
	keys := protocol.NewKeys(protocol.DefaultNamespace)
	id, epoch := make([]byte, 8), make([]byte, 8)
	var command []byte
	reply := make([]byte, 512)
	for {
		n := w.next.Add(1)
		if w.rate > 0 {
			due := w.began.Add(time.Duration(n) * time.Second / time.Duration(w.rate))
			if wait := time.Until(due); wait > 0 && sleep(ctx, wait) != nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		binary.BigEndian.PutUint64(id, uint64(w.began.UnixNano()+n))
		i := int(n) % len(w.writes)
		call := protocol.WriteCall{
			Channel: protocol.DefaultChannel, LogLength: 1_000_000, Writes: w.writes[i : i+1], Published: now,
			Expires: now.Add(time.Minute).UnixMilli(), WriteID: id, NewEpoch: epoch,
		}
		command = appendCall(command[:0], &call, keys)
		if _, err := conn.Write(command); err != nil {
			return fmt.Errorf("write to Redis: %w", err)
		}
		if err := answer(conn, reply); err != nil {
			return fmt.Errorf("write to Redis: %w", err)
		}
		w.done.Add(1)
	}
}

// appendCall appends a call of write.lua as Redis's protocol encodes it.
func appendCall(b []byte, call *protocol.WriteCall, k protocol.Keys) []byte {
	keys, args := call.Arguments(k)
	b = append(strconv.AppendInt(append(b, '*'), int64(3+len(keys)+len(args)), 10), "\r\n"...)
	b = appendBulk(b, "EVALSHA")
	b = appendBulk(b, protocol.WriteScript.Hash())
	b = appendBulk(b, strconv.Itoa(len(keys)))
	for _, key := range keys {
		b = appendBulk(b, key)
	}
	for _, arg := range args {
		if raw, ok := arg.([]byte); ok {
			b = appendBulk(b, raw)
		} else {
			b = appendBulk(b, fmt.Sprint(arg))
		}
	}
	return b
}

// answer reads the reply to the only call in flight, and returns an error unless the write took place.
func answer(conn net.Conn, buf []byte) error {
	for n := 0; ; {
		if n == len(buf) {
			return fmt.Errorf("a reply of more than %d bytes", n)
		}
		m, err := conn.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		reply := buf[:n]
		switch {
		case !bytes.HasSuffix(reply, []byte("\r\n")):
		case bytes.HasPrefix(reply, []byte("*5\r\n:1\r\n")):
			if bytes.HasSuffix(reply, []byte("$1\r\nR\r\n")) || bytes.HasSuffix(reply, []byte("$1\r\nC\r\n")) {
				return nil
			}
		case reply[0] == '-' || bytes.HasPrefix(reply, []byte("*2\r\n")):
			return fmt.Errorf("the write was refused: %q", reply)
		}
	}
}
