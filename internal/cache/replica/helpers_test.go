package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// quiet returns a logger that discards everything.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// client returns a client for the test's own commands.
func client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	n, err := nodetest.New(t, addr).Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.Client
}

func newPublisher(t testing.TB, addr string) *publisher.Publisher {
	t.Helper()
	p, err := publisher.New(publisher.Config{Redis: nodetest.New(t, addr)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// startReplica starts a replica that stops with the test.
func startReplica(t testing.TB, addr string, options ...func(*Config)) *Replica {
	t.Helper()
	cfg := Config{Redis: nodetest.New(t, addr), Logger: quiet(), Probe: 100 * time.Millisecond}
	for _, o := range options {
		o(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		r.Close()
	})
	return r
}

func ready(t testing.TB, r *Replica) {
	t.Helper()
	eventually.Nil(t, func() error {
		if s := r.Status(); !s.Ready {
			return fmt.Errorf("not ready: %+v", s)
		}
		return nil
	})
}

func set(key, value string) protocol.Write {
	return protocol.Write{Op: protocol.Set, Key: key, Value: []byte(value)}
}

// write performs writes that must succeed.
func write(t testing.TB, p *publisher.Publisher, writes ...protocol.Write) []publisher.Result {
	t.Helper()
	results, err := p.Write(t.Context(), writes...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// holds waits until the replica answers key from memory with value; "" means absent.
func holds(t testing.TB, r *Replica, key, value string) {
	t.Helper()
	eventually.Nil(t, func() error {
		e, found := r.Get([]byte(key))
		if value == "" && found == store.Absent || value != "" && found == store.Hit && e.Value == value {
			return nil
		}
		return fmt.Errorf("%s is %v %q, want %q; %+v", key, found, e.Value, value, r.Status())
	})
}

func each(t *testing.T, f func(t *testing.T, addr string)) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) { f(t, b.Addr()) })
}

// entryToken returns the token of an entry's version.
func entryToken(e store.Entry) protocol.Token {
	return protocol.Token{Epoch: e.Epoch, Version: e.Version}
}
