package fastlane

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// The time that the handler and the client spend on an answer counts neither as idle time nor as time for the
// next header.
func TestClocksStartWhenTheAnswerIsWritten(t *testing.T) {
	const many = 16 // number of large answers that exceed both socket buffers
	half := get("2")[:12]
	for _, tt := range []struct {
		name, requests string
		during, after  phase
		answers        []string
	}{
		{"idle after a slow handler", get("wait"), serving, idle, []string{"post wait"}},
		{"header after a slow handler", get("wait") + half, serving, reading, []string{"post wait"}},
		{"idle after a slow client", strings.Repeat(get("large"), many), writing, idle, nil},
		{"header after a slow client", strings.Repeat(get("large"), many) + half, writing, reading, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			c := dial(t, f)
			_ = c.(*net.TCPConn).SetReadBuffer(256 << 10)
			send(t, c, tt.requests)
			eventually.True(t, "wait", func() bool { return f.phase() == tt.during })
			f.waitTicks(t, 3)
			if p := f.phase(); p != tt.during {
				t.Fatalf("phase %d, want %d", p, tt.during)
			}
			now := f.tick.Load()
			close(f.release)
			r := bufio.NewReader(c)
			for i := 0; i < many && tt.answers == nil; i++ {
				expect(t, r, "fast", large)
			}
			for _, want := range tt.answers {
				expect(t, r, "fast", want)
			}
			eventually.Nil(t, func() error {
				p, since := f.status()
				if p == poked { // a poke does not change since
					p = idle
				}
				if p != tt.after || since < now {
					return fmt.Errorf("phase %d since tick %d, want phase %d since tick %d or later", p, since, tt.after, now)
				}
				return nil
			})
		})
	}
}

// The time that the handler takes after a write does not count against the write timeout.
func TestSlowHandlerIsNotASlowClient(t *testing.T) {
	f := start(t, func(c *Config) { c.Std.WriteTimeout = sweepPause })
	c := dial(t, f)
	send(t, c, get("1")+get("wait"))
	r := bufio.NewReader(c)
	expect(t, r, "fast", "post 1")
	eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
	f.waitTicks(t, 5)
	close(f.release)
	expect(t, r, "fast", "post wait")
}

// Pipelined requests of a client that has reset its connection are not served, because each of them could block.
func TestResetConnectionIsNotServed(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	const requests = 20
	send(t, c, strings.Repeat(get("wait"), requests))
	eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	close(f.release)
	eventually.True(t, "end of the connection", func() bool { return f.connCount() == 0 })
	// The server detects the reset when it writes, and writes before the reset arrives succeed.
	if n := f.waiting.Load(); n > 3 {
		t.Errorf("%d of %d requests were served after a reset, want at most 3", n, requests)
	}
}

// Flushed is called for answers that have been written while later ones are still waiting for the client.
func TestWrittenAnswersAreReported(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	send(t, c, strings.Repeat(get("large"), 100))
	eventually.Nil(t, func() error { // the client reads nothing
		if p, n := f.phase(), f.requests.Load(); p != writing || n == 0 {
			return fmt.Errorf("phase %d and %d flushed answers, want phase %d and at least 1", p, n, writing)
		}
		return nil
	})
}
