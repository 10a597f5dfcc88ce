package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// drainInterval is the time between two reads of a subscriber that is not timed. Subscribers that read every message would
// occupy all cores, and waking each of them would cost Redis more than sending to a reader on another machine does.
const drainInterval = 10 * time.Millisecond

// subscribers are connections that subscribe to the writes and discard them.
type subscribers struct {
	conns []net.Conn
	raw   []syscall.RawConn
	bytes []atomic.Int64 // received by each connection
	stop  context.CancelFunc
	ended sync.WaitGroup
	err   error // why a connection failed; after ended
}

// subscribe opens n subscriptions, distributed evenly over the servers. The caller closes them.
func subscribe(ctx context.Context, servers []string, n int) (_ *subscribers, err error) {
	s := &subscribers{bytes: make([]atomic.Int64, n), stop: func() {}}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	for i := range n {
		conn, err := dialSubscriber(ctx, servers[i%len(servers)])
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, conn)
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			return nil, fmt.Errorf("subscribe: %w", err)
		}
		s.raw = append(s.raw, raw)
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.ended.Go(func() { s.err = s.drain(ctx) })
	return s, nil
}

// dialSubscriber opens a connection and subscribes. The caller closes it.
func dialSubscriber(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	confirmation := "*3\r\n$9\r\nsubscribe\r\n" + bulk(protocol.DefaultChannel) + ":1\r\n"
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err = io.WriteString(conn, "*2\r\n$9\r\nSUBSCRIBE\r\n"+bulk(protocol.DefaultChannel)); err == nil {
		_, err = io.ReadFull(conn, make([]byte, len(confirmation)))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

// bulk returns a string as Redis's protocol encodes it.
func bulk(s string) string { return string(appendBulk(nil, s)) }

func appendBulk[T string | []byte](b []byte, s T) []byte {
	b = append(strconv.AppendInt(append(b, '$'), int64(len(s)), 10), "\r\n"...)
	return append(append(b, s...), "\r\n"...)
}

// drain reads from all connections in turn until ctx is done.
func (s *subscribers) drain(ctx context.Context) error {
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	buf := make([]byte, 256<<10)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for i, raw := range s.raw {
			var n int
			var err error
			failed := raw.Read(func(fd uintptr) bool {
				n, err = syscall.Read(int(fd), buf)
				return true // without waiting for bytes
			})
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
				continue
			}
			if err = errors.Join(failed, err); err == nil && n == 0 {
				err = errors.New("the server closed the connection")
			}
			if err != nil {
				return fmt.Errorf("receive as a subscriber: %w", err)
			}
			s.bytes[i].Add(int64(n))
		}
	}
}

// received returns the smallest and the largest number of bytes that a subscriber has received.
func (s *subscribers) received() (least, most int64) {
	for i := range s.bytes {
		n := s.bytes[i].Load()
		if i == 0 || n < least {
			least = n
		}
		most = max(most, n)
	}
	return least, most
}

// close closes all connections and returns why one of them had failed.
func (s *subscribers) close() error {
	s.stop()
	s.ended.Wait()
	for _, c := range s.conns {
		_ = c.Close()
	}
	return s.err
}
