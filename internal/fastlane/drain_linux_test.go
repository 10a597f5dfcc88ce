package fastlane

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// Every request that a connected client has sent is answered, although each answer during the drain makes its
// client open a new connection, so that some connections are still in the accept queue when the server stops.
func TestStopAnswersReconnectingClients(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		var clients sync.WaitGroup
		var answered atomic.Int64
		for range 32 {
			clients.Go(func() {
				for {
					c, err := net.DialTimeout("tcp", f.addr, 20*time.Second)
					if errors.Is(err, syscall.ECONNREFUSED) {
						return // the server has stopped
					} else if err != nil {
						t.Error(err)
						return
					}
					if err := requestOn(c); err != nil {
						t.Errorf("a request on a new connection: %v", err)
						return
					}
					answered.Add(1)
				}
			})
		}
		eventually.True(t, "answers", func() bool { return answered.Load() > 200 })
		f.Drain()
		drained := answered.Load()
		eventually.True(t, "answers during the drain", func() bool { return answered.Load() > drained+200 })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		clients.Wait()
	})
}

func requestOn(c net.Conn) error {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, get("1")); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
