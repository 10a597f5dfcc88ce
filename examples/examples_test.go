// Package examples tests the client examples in this folder.
package examples

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
	"heavy-read-api/internal/writer"
)

// client is a running example.
type client struct {
	t     *testing.T
	lines chan string
}

// run starts an example. It is killed when the test ends.
func run(t *testing.T, writer, reader string, command ...string) *client {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "WRITER="+writer, "READER="+reader)
	var errors strings.Builder
	cmd.Stderr, cmd.WaitDelay = &errors, time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, lines: make(chan string, 1000)}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { // the context has been cancelled
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", command, errors.String())
		}
	})
	return c
}

// want waits for the next line.
func (c *client) want(line string) {
	c.t.Helper()
	select {
	case got, ok := <-c.lines:
		if !ok || got != line {
			c.t.Fatalf("the client printed %q, want %q", got, line)
		}
	case <-time.After(30 * time.Second):
		c.t.Fatalf("the client did not print %q", line)
	}
}

// Each example writes a post, reads it, copies all posts, and follows the changes: over a connection that is cut, and into
// another history.
func TestExamples(t *testing.T) {
	for _, command := range [][]string{{"python3", "client.py"}, {"node", "client.mjs"}, {"bash", "client.sh", "curl", "jq"}} {
		t.Run(command[0], func(t *testing.T) {
			for _, tool := range append(command[:1:1], command[2:]...) {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip(err)
				}
			}
			t.Parallel()
			b := redistest.StartEmbedded(t)
			local := daemon.Common{Host: "127.0.0.1"}
			data := redisconfig.Data{Common: local, Redis: redisconfig.Redis{Addr: []string{b.Addr()}}, Drain: -1}
			w := servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
				c := writer.Config{Data: data, Timeout: 20 * time.Second}
				c.Listening = listening
				return writer.Run(ctx, c)
			})
			var readers []string
			for i := range 2 {
				r := servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
					c := reader.Config{Data: data, PodID: fmt.Sprint("reader-", i+1)}
					c.Listening = listening
					return reader.Run(ctx, c)
				})
				eventually.True(t, "ready", func() bool {
					res, _ := r.Send(t, "GET", "/ready", nil)
					return res.StatusCode == http.StatusOK
				})
				readers = append(readers, strings.TrimPrefix(r.URL, "http://"))
			}
			g := servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
				c := gateway.Config{Common: local, Readers: readers}
				c.Listening = listening
				return gateway.Run(ctx, c)
			})
			proxy := faultnet.NewProxy(t, strings.TrimPrefix(g.URL, "http://"))
			put := func(id string) {
				t.Helper()
				if res, body := w.Send(t, "PUT", "/post?id="+id, strings.NewReader(`{"title":"t"}`)); res.StatusCode >= 300 {
					t.Fatalf("PUT %s: %d %s", id, res.StatusCode, body)
				}
			}
			put("first")
			c := run(t, w.URL, "http://"+proxy.Addr(), command[:2]...)
			c.want("read Hello")
			c.want("copied 2")
			put("second")
			c.want("set second")
			proxy.Only(func(faultnet.Conn) bool { return true }).Cut()
			put("third")
			c.want("set third")
			if res, body := w.Send(t, "DELETE", "/post?id=first", nil); res.StatusCode != http.StatusNoContent {
				t.Fatalf("DELETE: %d %s", res.StatusCode, body)
			}
			c.want("delete first")
			if err := b.Client(t).FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			put("new") // in another history
			c.want("copied 1")
			put("last")
			c.want("set last")
		})
	}
}
