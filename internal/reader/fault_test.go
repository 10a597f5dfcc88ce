package reader

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// tooLong is the limit for every read during a fault: far above the promised 500 ms, because the test
// machine may be busy, and far below any unbounded wait.
const tooLong = 3 * time.Second

func (r *instance) wantUnavailable(t *testing.T, target, field string, header ...string) {
	t.Helper()
	began := time.Now()
	res := r.do(t, "GET", target, header...)
	if took := time.Since(began); took > tooLong {
		t.Errorf("%s: the answer took %v", target, took)
	}
	wantProblem(t, res, 503, field)
	if got := res.header.Get("Retry-After"); got != "1" {
		t.Errorf("%s: Retry-After %q", target, got)
	}
}

func (r *instance) wantStatus(t *testing.T, target string, status int, header ...string) response {
	t.Helper()
	began := time.Now()
	res := r.do(t, "GET", target, header...)
	if res.status != status {
		t.Errorf("%s: %d %s, want %d", target, res.status, res.body, status)
	}
	if took := time.Since(began); took > tooLong {
		t.Errorf("%s: the answer took %v", target, took)
	}
	return res
}

// faults are the ways in which Redis can be unreachable.
var faults = map[string]struct{ begin, end func(*faultnet.Proxy) }{
	"refused": {
		func(p *faultnet.Proxy) { p.Refuse(true); p.Reset() },
		func(p *faultnet.Proxy) { p.Refuse(false) },
	},
	"black hole": {
		func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToServer, true); p.BlackHole(faultnet.ToClient, true) },
		func(p *faultnet.Proxy) { p.Heal() },
	},
	"silent": {
		func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToClient, true) },
		func(p *faultnet.Proxy) { p.Heal() },
	},
}

// TestRedisAwayFromTheStart starts a reader while Redis is unreachable. The reader is alive and not ready,
// answers within the limit, and becomes ready when Redis is reachable.
func TestRedisAwayFromTheStart(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			b := redistest.StartEmbedded(t)
			w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
			proxy := faultnet.NewProxy(t, b.Addr())
			fault.begin(proxy)
			r := start(t, proxy.Addr())

			r.wantStatus(t, "/health", 200)
			res := r.wantStatus(t, "/ready", 503)
			var body readiness
			if err := json.Unmarshal(res.body, &body); err != nil || body.Status != "loading" || len(body.Reasons) == 0 {
				t.Errorf("/ready: %s", res.body)
			}
			for _, path := range paths {
				r.wantUnavailable(t, path+"?id=a", "id")
				wantProblem(t, r.do(t, "GET", path+"?id=%00"), 400, "id") // answered without Redis
			}
			fault.end(proxy)
			r.waitReady(t, "ready")
			for _, path := range paths {
				if res := r.wantStatus(t, path+"?id=a", 200); string(res.body) != string(w.body) {
					t.Errorf("%s: %s", path, res.body)
				}
			}
		})
	}
}

// TestRedisGoesAway makes Redis unreachable for a reader with the whole data set. The reader stays ready
// and serves from memory, 404 included; reads that need Redis get 503 within the limit.
func TestRedisGoesAway(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			b := redistest.StartEmbedded(t)
			p := newPublisher(t, b.Addr())
			w := publish(t, p, post.Post{ID: "a", Title: "t"})
			proxy := faultnet.NewProxy(t, b.Addr())
			r := startReady(t, proxy.Addr())
			fault.begin(proxy)
			r.waitReady(t, "degraded")
			next := publish(t, p, post.Post{ID: "a", Title: "unseen"})

			for range 3 {
				for _, path := range []string{"/post?id=a", "/post-marshal?id=a"} {
					if res := r.wantStatus(t, path, 200); string(res.body) != string(w.body) {
						t.Errorf("%s: %s", path, res.body)
					}
					r.wantStatus(t, path, 304, "If-None-Match", w.etag)
					r.wantStatus(t, path, 200, "X-Min-Version", w.token.String())
					r.wantUnavailable(t, path, "X-Min-Version", "X-Min-Version", next.token.String())
					r.wantStatus(t, path, 200, "X-Min-Version", w.position(), "Cookie", httpkit.VersionCookie+"="+w.position())
				}
				wantProblem(t, r.wantStatus(t, "/post?id=unknown", 404), 404, "id")
				r.wantUnavailable(t, "/post-redis?id=a", "id")
			}
			for _, path := range []string{"/post?id=a", "/posts?id=a"} {
				r.wantStatus(t, path, 200)
				r.wantUnavailable(t, path, "X-Min-Version", "X-Min-Version", "latest")
				r.wantUnavailable(t, path, "X-Min-Version", "X-Min-Version", next.position())
				r.wantUnavailable(t, path, "Cookie", "Cookie", httpkit.VersionCookie+"="+next.position())
			}
			r.wantStatus(t, "/ready", 200)
			var s report
			if err := json.Unmarshal(r.do(t, "GET", "/status").body, &s); err != nil {
				t.Fatal(err)
			}
			if !s.Ready || !s.Degraded || s.Synced || s.LagSeconds <= 0 || len(s.Reasons) == 0 || s.AppliedVersion != w.token.Version {
				t.Errorf("/status: %+v", s)
			}

			fault.end(proxy)
			r.waitReady(t, "ready")
			eventually.Nil(t, func() error {
				if res := r.do(t, "GET", "/post?id=a"); string(res.body) != string(next.body) {
					return fmt.Errorf("not converged: %s", res.body)
				}
				return nil
			})
		})
	}
}

// TestWaitingEnds measures how long reads wait for a Redis that does not reply. It takes the fastest of
// five, because the test machine may be busy. All timeouts of the Redis client are longer than that.
func TestWaitingEnds(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	proxy := faultnet.NewProxy(t, b.Addr())
	r := startReady(t, proxy.Addr())
	proxy.BlackHole(faultnet.ToClient, true)
	next := protocol.Token{Epoch: w.token.Epoch, Version: w.token.Version + 1}
	for path, header := range map[string][]string{
		"/post": {"X-Min-Version", next.String()}, "/post-redis": nil, "/post-marshal": {"X-Min-Version", "latest"}, "/posts": {"X-Min-Version", "latest"},
	} {
		fastest := time.Hour
		for range 5 {
			began := time.Now()
			if res := r.do(t, "GET", path+"?id=a", header...); res.status != 503 {
				t.Errorf("%s: %d %s", path, res.status, res.body)
			}
			fastest = min(fastest, time.Since(began))
		}
		if fastest > 500*time.Millisecond {
			t.Errorf("%s: the fastest of 5 answers took %v", path, fastest)
		}
	}
}

// TestMinVersion reads posts right after they were written, while the channel delivers nothing.
func TestMinVersion(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		publish(t, p, post.Post{ID: "a", Title: "0"})
		proxy := faultnet.NewProxy(t, b.Addr())
		r := startReady(t, proxy.Addr())
		proxy.Only(faultnet.Contains("subscribe")).BlackHole(faultnet.ToClient, true)
		for i := range 5 {
			w := publish(t, p, post.Post{ID: "a", Title: fmt.Sprint(i + 1)})
			for _, path := range paths {
				res := r.wantStatus(t, path+"?id=a", 200, "X-Min-Version", w.token.String())
				if string(res.body) != string(w.body) {
					t.Errorf("%s: %s, want %s", path, res.body, w.body)
				}
			}
			for n, path := range []string{"/post?id=a", "/posts?id=a", "/post-marshal?id=a"} {
				for _, header := range []string{"X-Min-Version: latest", "X-Min-Version: ", "Cookie: a=b; " + httpkit.VersionCookie + "="} {
					w := publish(t, p, post.Post{ID: "a", Title: fmt.Sprint(i, n, header)})
					name, value, _ := strings.Cut(header, ": ")
					if value != latest {
						value += w.position()
					}
					if res := r.wantStatus(t, path, 200, name, value); !bytes.Contains(res.body, w.body) {
						t.Errorf("%s with %s: %s: %s, want %s", path, name, value, res.body, w.body)
					}
				}
			}
			token := remove(t, p, "a")
			r.wantStatus(t, "/post?id=a", 404, "X-Min-Version", "latest")
			for _, path := range paths {
				r.wantStatus(t, path+"?id=a", 404, "X-Min-Version", token.String())
			}
			far := protocol.Token{Epoch: token.Epoch, Version: token.Version + 1000}
			r.wantUnavailable(t, "/post?id=a", "X-Min-Version", "X-Min-Version", far.String())
			other := protocol.Token{Epoch: token.Epoch + 1, Version: token.Version + 1000}
			r.wantStatus(t, "/post?id=a", 404, "X-Min-Version", other.String())
		}
	})
}

// TestSmallMemory stores more posts than fit into memory. Reads of the others go to Redis, or get 503 while
// it is unreachable; none gets 404.
func TestSmallMemory(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	posts := map[string]written{}
	for i := range 200 {
		id := fmt.Sprint("post-", i)
		posts[id] = publish(t, p, post.Post{ID: id, Title: "t", Content: strings.Repeat("x", 2000)})
	}
	proxy := faultnet.NewProxy(t, b.Addr())
	r := startReady(t, proxy.Addr(), func(c *Config) { c.Local.MaxSize = 100 << 10 })
	for id, w := range posts {
		for _, path := range paths {
			if res := r.wantStatus(t, target(path, id), 200); string(res.body) != string(w.body) {
				t.Errorf("%s %s: %.80s", path, id, res.body)
			}
		}
	}
	wantProblem(t, r.do(t, "GET", "/post?id=unknown"), 404, "id")
	res := r.wantStatus(t, "/ready", 200)
	if !strings.Contains(string(res.body), "not all posts fit") {
		t.Errorf("/ready: %s", res.body)
	}

	proxy.Refuse(true)
	proxy.Reset()
	r.waitReady(t, "degraded")
	found, missed := 0, 0
	for id, w := range posts {
		switch res := r.do(t, "GET", target("/post", id)); {
		case res.status == 200 && string(res.body) == string(w.body):
			found++
		case res.status == 503:
			missed++
		default:
			t.Errorf("%s: %d %.80s", id, res.status, res.body)
		}
	}
	if found == 0 || missed == 0 {
		t.Errorf("%d reads got 200 and %d got 503, want some of each", found, missed)
	}
}

// TestForeignValue reads a value that is not a post from a post's key.
func TestForeignValue(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	if _, err := p.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: "odd", Value: []byte(`{"id":"odd"}`)}); err != nil {
		t.Fatal(err)
	}
	r := startReady(t, b.Addr())
	for _, path := range paths {
		wantProblem(t, r.do(t, "GET", path+"?id=odd"), 500, "id")
	}
}

// Clients can request versions that do not exist. At most maxBehind reads wait at a time; further ones get
// 503 at once, in both lanes, while probes and reads from memory are not affected.
func TestWaitsForVersionsAreBounded(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	g := newGetter(t, b.Addr())
	future := w.token
	future.Version += 1000
	q := request{id: []byte("a"), minVersion: []byte(future.String())}

	g.behind.Store(maxBehind - 1)
	if a := g.get(t.Context(), &q, fromMemory); a.problem != &behind {
		t.Errorf("the last read that may wait: %+v", a)
	}
	g.behind.Store(maxBehind)
	if a := g.get(t.Context(), &q, fromMemory); a.problem != &crowded {
		t.Errorf("a read beyond the limit: %+v", a)
	}
	q.minVersion = []byte(w.token.String())
	if a := g.get(t.Context(), &q, fromMemory); a.status != 200 {
		t.Errorf("a version that the replica has reached: %+v", a)
	}
	q.minVersion = nil
	if a := g.get(t.Context(), &q, fromMemory); a.status != 200 {
		t.Errorf("a read without a version: %+v", a)
	}
	if n := g.behind.Load(); n != maxBehind {
		t.Errorf("%d reads count as waiting at the end, want %d", n, maxBehind)
	}

	r := startReady(t, b.Addr())
	request := "GET /post?id=a HTTP/1.1\r\nHost: a\r\nX-Min-Version: " + future.String() + "\r\n\r\n"
	var clients sync.WaitGroup
	var refused atomic.Int64
	for range 8 * maxBehind {
		clients.Go(func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, request); err != nil {
				t.Error(err)
				return
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || res.StatusCode != 503 {
				t.Errorf("%v, %v", res, err)
				return
			}
			body, _ := io.ReadAll(res.Body)
			if strings.Contains(string(body), "too many reads are already waiting") {
				refused.Add(1)
			}
		})
	}
	eventually.True(t, "refused read", func() bool {
		r.wantStatus(t, "/ready", 200)
		r.wantStatus(t, "/post?id=a", 200)
		return refused.Load() > 0
	})
	clients.Wait()
}
