package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/eventually"
	"heavy-read-api/internal/faultnet"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redistest"
	"heavy-read-api/internal/servicetest"
)

// tooLong is how long no write may take, whatever happens: over the promised 2 s, because the
// machine of the tests is busy.
const tooLong = 4 * time.Second

// unavailable is a write that got 503: it was not written, or nobody knows.
func (w *instance) wantUnavailable(t *testing.T, method, target, body, detail string) {
	t.Helper()
	began := time.Now()
	res := w.do(t, method, target, body)
	if took := time.Since(began); took > tooLong {
		t.Errorf("%s %s: the answer took %v", method, target, took)
	}
	p := wantProblem(t, res, 503, "")
	if !strings.Contains(p.Detail, detail) || res.header.Get("Retry-After") != "1" {
		t.Errorf("%s %s: Retry-After %q, %q, want %q", method, target, res.header.Get("Retry-After"), p.Detail, detail)
	}
}

const (
	surelyNot = "nothing was written"
	maybe     = "may have taken place"
)

// TestRedisAway tries to write while Redis is away in several ways, and again when it is back.
func TestRedisAway(t *testing.T) {
	for name, tt := range map[string]struct {
		begin, end func(*faultnet.Proxy)
		detail     string
	}{
		"refused": {
			func(p *faultnet.Proxy) { p.Refuse(true); p.Reset() },
			func(p *faultnet.Proxy) { p.Refuse(false) },
			"", // the first write may find a connection whose end it has not noticed
		},
		"black hole": {
			func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToServer, true) },
			func(p *faultnet.Proxy) { p.Heal() },
			maybe,
		},
		"silent": {
			func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToClient, true) },
			func(p *faultnet.Proxy) { p.Heal() },
			maybe,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := redistest.StartEmbedded(t)
			proxy := faultnet.NewProxy(t, b.Addr())
			w := start(t, proxy.Addr(), prompt)
			db := b.Client(t)
			wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
			tt.begin(proxy)
			w.wantUnavailable(t, "POST", "/create", line("b", "t"), tt.detail)
			w.wantUnavailable(t, "PUT", "/post?id=c", `{"title":"t"}`, "")
			w.wantUnavailable(t, "DELETE", "/post?id=a", "", "")
			// What is wrong with the request is told without Redis.
			wantProblem(t, w.do(t, "POST", "/create", `{}`), 400, "id")
			w.waitReady(t, 503, `"no redis"`)
			if res := w.do(t, "GET", "/health", ""); res.status != 200 {
				t.Errorf("/health: %d", res.status)
			}
			tt.end(proxy)
			w.waitReady(t, 200, "")
			wantSuccess(t, db, w.do(t, "POST", "/create", line("d", "t")), 201, "d")
		})
	}
}

// TestNeverThere writes to a Redis that was never there: such a write has certainly not happened.
func TestNeverThere(t *testing.T) {
	proxy := faultnet.NewProxy(t, redistest.StartEmbedded(t).Addr())
	proxy.Refuse(true)
	w := start(t, proxy.Addr(), prompt)
	w.wantUnavailable(t, "POST", "/create", line("a", "t"), surelyNot)
	w.wantUnavailable(t, "DELETE", "/post?id=a", "", surelyNot)
}

// TestReplyLost loses the reply to a write that Redis took. The client is told the truth, and the
// write happened once.
func TestReplyLost(t *testing.T) {
	for name, action := range map[string]faultnet.Action{"swallowed": faultnet.SwallowReply, "cut": faultnet.CutAtReply} {
		t.Run(name, func(t *testing.T) {
			b := redistest.StartEmbedded(t)
			proxy := faultnet.NewProxy(t, b.Addr())
			w := start(t, proxy.Addr(), prompt)
			db := b.Client(t)
			wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "old")), 201, "a")
			proxy.OnceContains(faultnet.ToServer, "evalsha", action)
			w.wantUnavailable(t, "POST", "/create", line("a", "new"), maybe)
			if have := stored(t, db, "a"); !strings.Contains(have, "new") {
				t.Errorf("Redis has %s", have)
			}
			if got := version(t, db); got != "2" {
				t.Errorf("version %s, want 2", got)
			}
		})
	}
}

// TestRefusedByRedis has a Redis that answers and cannot write.
func TestRefusedByRedis(t *testing.T) {
	redistest.Require(t)
	b := redistest.Start(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
	if err := db.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	w.wantUnavailable(t, "POST", "/create", line("b", "t"), surelyNot)
	if err := db.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	wantSuccess(t, db, w.do(t, "POST", "/create", line("b", "t")), 201, "b")
}

// TestClientLeaves loses the client while its write waits for a connection to Redis: the write is
// not given up half-way.
func TestClientLeaves(t *testing.T) {
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), prompt)
	db := b.Client(t)
	proxy.Stall(faultnet.ToServer, true)

	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", w.URL+"/create", strings.NewReader(line("a", "t")))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		res, err := servicetest.Client.Do(req)
		if err == nil {
			res.Body.Close()
		}
		gone <- err
	}()
	eventually.Nil(t, func() error {
		if proxy.Accepted() == 0 {
			return errors.New("no connection to Redis")
		}
		return nil
	})
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	proxy.Stall(faultnet.ToServer, false)
	eventually.Nil(t, func() error {
		if stored(t, db, "a") == "" {
			return errors.New("a is not there")
		}
		return nil
	})
}

// TestStop stops a writer while a write is under way: /ready says so first, the write gets its
// answer.
func TestStop(t *testing.T) {
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), prompt, func(c *Config) { c.Drain = time.Second })
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")

	hook := proxy.OnceContains(faultnet.ToServer, "evalsha", faultnet.SwallowReply)
	answer := make(chan string, 1)
	go func() {
		res, err := servicetest.Client.Post(w.URL+"/create", "application/json", strings.NewReader(line("b", "t")))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		answer <- res.Status
	}()
	<-hook.Fired()
	began := time.Now()
	w.Stop()
	eventually.Nil(t, func() error {
		if res := w.do(t, "GET", "/ready", ""); res.status != 503 || !strings.Contains(string(res.body), `"stopping"`) {
			return fmt.Errorf("/ready: %d %s", res.status, res.body)
		}
		return nil
	})
	wantSuccess(t, db, w.do(t, "POST", "/create", line("c", "t")), 201, "c")
	if got := <-answer; got != "503 Service Unavailable" {
		t.Error(got)
	}
	for err := range w.Done {
		if err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// TestRaceOfConditions lets clients replace one post, each on the condition that it is still the one
// they read: exactly one of each round wins.
func TestRaceOfConditions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		etag := wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
		for round := range 10 {
			const clients = 8
			answers := make(chan response, clients)
			for i := range clients {
				go func() {
					answers <- w.do(t, "PUT", "/post?id=a", fmt.Sprintf(`{"title":"%d-%d"}`, round, i), "If-Match", etag)
				}()
			}
			won, next := 0, ""
			for range clients {
				switch res := <-answers; res.status {
				case 200:
					won++
					next = res.header.Get("ETag")
				case 412:
				default:
					t.Errorf("%d %s", res.status, res.body)
				}
			}
			if won != 1 || next != post.ETag(stored(t, db, "a")) {
				t.Fatalf("%d clients won", won)
			}
			etag = next
		}
	})
}
