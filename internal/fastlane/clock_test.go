package fastlane

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// The time that the handler and the client take for an answer counts neither as idle time nor as
// time for the next header.
func TestClocksStartWhenTheAnswerIsWritten(t *testing.T) {
	const many = 16 // large answers: more than the two socket buffers hold
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
			eventually.True(t, "wait", func() bool { return f.oldestPhase() == tt.during })
			f.letPass(t, 3)
			if p := f.oldestPhase(); p != tt.during {
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
				if p == poked { // since then
					p = idle
				}
				if p != tt.after || since < now {
					return fmt.Errorf("phase %d since tick %d, want %d since %d at the earliest", p, since, tt.after, now)
				}
				return nil
			})
		})
	}
}

// The time that the handler takes after a write does not count as time of the write.
func TestASlowHandlerIsNoSlowClient(t *testing.T) {
	f := start(t, func(c *Config) { c.Std.WriteTimeout = sweepPause })
	c := dial(t, f)
	send(t, c, get("1")+get("wait"))
	r := bufio.NewReader(c)
	expect(t, r, "fast", "post 1")
	eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
	f.letPass(t, 5)
	close(f.release)
	expect(t, r, "fast", "post wait")
}

// Pipelined requests of a client that has reset its connection are not served: each could block.
func TestAResetConnectionIsNotServed(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	const requests = 20
	send(t, c, strings.Repeat(get("wait"), requests))
	eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	close(f.release)
	eventually.True(t, "end of the connection", func() bool { return f.open() == 0 })
	// The server notices the reset when it writes; a write before the reset arrives succeeds.
	if n := f.waiting.Load(); n > 3 {
		t.Errorf("%d of %d requests were served", n, requests)
	}
}

// Flushed is called for answers that have been written, while later ones still wait for the client.
func TestWrittenAnswersAreReported(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	send(t, c, strings.Repeat(get("large"), 100))
	eventually.Nil(t, func() error { // without a read of ours
		if p, n := f.oldestPhase(), f.requests.Load(); p != writing || n == 0 {
			return fmt.Errorf("phase %d, %d requests are counted", p, n)
		}
		return nil
	})
}
