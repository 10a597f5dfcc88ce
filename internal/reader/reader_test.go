package reader

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/servicetest"
)

// instance is a reader that runs in the test's process.
type instance struct{ *servicetest.Instance }

// start starts a reader on a free port and stops it when the test ends. It does not wait for readiness.
func start(t testing.TB, redisAddr string, options ...func(*Config)) *instance {
	t.Helper()
	cfg := Config{
		Data:  redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{redisAddr}}, Drain: -1},
		PodID: "reader-under-test",
	}
	for _, o := range options {
		o(&cfg)
	}
	return &instance{servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
		cfg.Listening = listening
		return Run(ctx, cfg)
	})}
}

// startReady starts a reader and waits until it is ready.
func startReady(t testing.TB, redisAddr string, options ...func(*Config)) *instance {
	t.Helper()
	r := start(t, redisAddr, options...)
	r.waitReady(t, "ready")
	return r
}

func (r *instance) waitReady(t testing.TB, status string) {
	t.Helper()
	eventually.Nil(t, func() error {
		res := r.do(t, "GET", "/ready")
		var body readiness
		if err := json.Unmarshal(res.body, &body); err != nil || body.Status != status {
			return fmt.Errorf("/ready answers %d %s, want status %q", res.status, res.body, status)
		}
		return nil
	})
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request; header alternates names and values.
func (r *instance) do(t testing.TB, method, target string, header ...string) response {
	t.Helper()
	res, body := r.Send(t, method, target, nil, header...)
	return response{res.StatusCode, res.Header, body}
}

// raw sends the bytes of a request and returns the bytes of the response.
func (r *instance) raw(t testing.TB, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func target(path, id string) string { return path + "?id=" + url.QueryEscape(id) }

func newPublisher(t testing.TB, redisAddr string) *publisher.Publisher {
	t.Helper()
	p, err := publisher.New(publisher.Config{Redis: nodetest.New(t, redisAddr)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// written is a post as it was written to Redis.
type written struct {
	body  []byte
	etag  string
	token protocol.Token
	id    uint64 // write id
}

// position returns the position after the write.
func (w written) position() string {
	return protocol.Position{Head: protocol.Head{Epoch: w.token.Epoch, Version: w.token.Version, WriteID: w.id}}.String()
}

func publish(t testing.TB, p *publisher.Publisher, text post.Post) written {
	t.Helper()
	e := text.Encode(time.Now())
	results, err := p.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: text.ID, Value: e.Body, Tag: e.Sum})
	if err != nil {
		t.Fatal(err)
	}
	return written{e.Body, string(post.AppendETag(nil, e.Sum)), results[0].Token, results[0].WriteID}
}

func remove(t testing.TB, p *publisher.Publisher, id string) protocol.Token {
	t.Helper()
	results, err := p.Write(t.Context(), protocol.Write{Op: protocol.Delete, Key: id})
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Token
}

// wantProblem checks that a response is a problem document with this status and field, and that it has the
// common headers.
func wantProblem(t *testing.T, res response, status int, field string) {
	t.Helper()
	var p httpkit.Problem
	if err := json.Unmarshal(res.body, &p); err != nil {
		t.Errorf("status %d, body %q: %v", res.status, res.body, err)
	}
	if res.status != status || p.Status != status || p.Field != field || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("status %d, %s, want %d and field %q", res.status, res.body, status, field)
	}
	for name, want := range map[string]string{
		"Content-Type":   "application/problem+json",
		"Content-Length": fmt.Sprint(len(res.body)),
		"X-Served-By":    "reader-under-test",
		"ETag":           "",
		"X-Version":      "",
	} {
		if got := res.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// newGetter returns a getter whose replica has finished its first snapshot.
func newGetter(t testing.TB, redisAddr string) *getter {
	t.Helper()
	replica, err := replica.New(replica.Config{Redis: nodetest.New(t, redisAddr), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { replica.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		replica.Close()
	})
	eventually.Nil(t, func() error {
		if s := replica.Status(); !s.Ready {
			return fmt.Errorf("not ready: %+v", s)
		}
		return nil
	})
	return &getter{replica: replica, budget: waitBudget}
}
