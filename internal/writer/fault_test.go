package writer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
)

// maxAnswerTime bounds the answer to every write during a fault. It exceeds the promised 2 s, because the machine that
// runs the tests is busy.
const maxAnswerTime = 4 * time.Second

// wantUnavailable sends a write and expects a 503 whose detail contains detail.
func (w *instance) wantUnavailable(t *testing.T, method, target, body, detail string, header ...string) {
	t.Helper()
	began := time.Now()
	res := w.do(t, method, target, body, header...)
	if took := time.Since(began); took > maxAnswerTime {
		t.Errorf("%s %s: the answer took %v, want at most %v", method, target, took, maxAnswerTime)
	}
	p := wantProblem(t, res, 503, "")
	if !strings.Contains(p.Detail, detail) || res.header.Get("Retry-After") != "1" {
		t.Errorf("%s %s: Retry-After %q and detail %q, want \"1\" and %q", method, target, res.header.Get("Retry-After"), p.Detail, detail)
	}
}

const (
	notWrittenDetail = "nothing was written"
	unknownDetail    = "may or may not have taken place"
)

// TestRedisOutage writes during several kinds of outages and again after each one.
func TestRedisOutage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		begin, end func(*faultnet.Proxy)
		detail     string
	}{
		"refused": {
			func(p *faultnet.Proxy) { p.Refuse(true); p.Reset() },
			func(p *faultnet.Proxy) { p.Refuse(false) },
			"", // the first write may use a connection whose end has not been noticed yet
		},
		"black hole": {
			func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToServer, true) },
			func(p *faultnet.Proxy) { p.Heal() },
			unknownDetail,
		},
		"silent": {
			func(p *faultnet.Proxy) { p.BlackHole(faultnet.ToClient, true) },
			func(p *faultnet.Proxy) { p.Heal() },
			unknownDetail,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := redistest.StartEmbedded(t)
			proxy := faultnet.NewProxy(t, b.Addr())
			w := start(t, proxy.Addr(), defaultTimeout)
			db := b.Client(t)
			wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
			tt.begin(proxy)
			w.wantUnavailable(t, "POST", "/create", line("b", "t"), tt.detail)
			w.wantUnavailable(t, "PUT", "/post?id=c", `{"title":"t"}`, "")
			w.wantUnavailable(t, "DELETE", "/post?id=a", "", "")
			// An invalid request is refused without Redis.
			wantProblem(t, w.do(t, "POST", "/create", `{}`), 400, "id")
			w.waitReady(t, 503, `"no redis"`)
			if res := w.do(t, "GET", "/health", ""); res.status != 200 {
				t.Errorf("GET /health: %d, want 200", res.status)
			}
			tt.end(proxy)
			w.waitReady(t, 200, "")
			wantSuccess(t, db, w.do(t, "POST", "/create", line("d", "t")), 201, "d")
		})
	}
}

// TestRedisNeverReachable writes to a Redis that was never reachable: such a write has certainly not taken place.
func TestRedisNeverReachable(t *testing.T) {
	proxy := faultnet.NewProxy(t, redistest.StartEmbedded(t).Addr())
	proxy.Refuse(true)
	w := start(t, proxy.Addr(), defaultTimeout)
	w.wantUnavailable(t, "POST", "/create", line("a", "t"), notWrittenDetail)
	w.wantUnavailable(t, "DELETE", "/post?id=a", "", notWrittenDetail)
}

// TestReplyLost loses the reply to a write, or the write itself. The answer reports the outcome, and the write takes
// place at most once.
func TestReplyLost(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	for name, tt := range map[string]struct {
		method, target, body, header, value string
		status                              int
	}{
		"create":             {"POST", "/create", line("b", "new"), "", "", 201},
		"replace":            {"POST", "/create", line("a", "new"), "", "", 200},
		"put":                {"PUT", "/post?id=a", `{"title":"new"}`, "", "", 200},
		"put if it matches":  {"PUT", "/post?id=a", `{"title":"new"}`, "If-Match", "TAG", 200},
		"put if there":       {"PUT", "/post?id=a", `{"title":"new"}`, "If-Match", "*", 200},
		"create only":        {"PUT", "/post?id=b", `{"title":"new"}`, "If-None-Match", "*", 201},
		"delete":             {"DELETE", "/post?id=a", "", "", "", 204},
		"delete if it match": {"DELETE", "/post?id=a", "", "If-Match", "TAG", 204},
	} {
		for how, action := range map[string]faultnet.Action{"swallowed": faultnet.SwallowReply, "cut": faultnet.CutAtReply, "write lost": faultnet.CutNow} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				b := redistest.Start(t)
				proxy := faultnet.NewProxy(t, b.Addr())
				// A quarter of the timeout is left to check the outcome, which has to be enough on a busy machine.
				w := start(t, proxy.Addr(), func(c *Config) { c.Timeout = 2500 * time.Millisecond })
				db := b.Client(t)
				etag := wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "old")), 201, "a")
				var header []string
				if tt.header != "" {
					header = []string{tt.header, strings.ReplaceAll(tt.value, "TAG", etag)}
				}
				id := "a"
				if tt.status == 201 {
					id = "b"
				}
				proxy.OnceContains(faultnet.ToServer, postKey(id), action)
				began := time.Now()
				res := w.do(t, tt.method, tt.target, tt.body, header...)
				if took := time.Since(began); took > maxAnswerTime {
					t.Errorf("the answer took %v, want at most %v", took, maxAnswerTime)
				}
				if action == faultnet.CutNow {
					if p := wantProblem(t, res, 503, ""); !strings.Contains(p.Detail, notWrittenDetail) || version(t, db) != "1" {
						t.Errorf("detail %q and version %s, want %q and version 1", p.Detail, version(t, db), notWrittenDetail)
					}
					res = w.do(t, tt.method, tt.target, tt.body, header...) // the retry that the answer advises
				}
				token, err := protocol.ParseToken(res.header.Get("X-Version"))
				if res.status != tt.status || err != nil || token.Version != 2 || version(t, db) != "2" {
					t.Errorf("%d, version %v (%v), %s; Redis has version %s; want %d and version 2", res.status, token, err, res.body, version(t, db), tt.status)
				}
				switch id := "a"; tt.status {
				case 204:
					if have := stored(t, db, id); have != "" {
						t.Errorf("Redis has %s, want no post", have)
					}
				case 201:
					id = "b"
					fallthrough
				default:
					wantSuccess(t, db, res, tt.status, id)
				}
			})
		}
	}
}

// TestFailedConditionReplyLost loses the reply to a write whose condition does not hold: nothing is written, and a
// retry is answered with 412.
func TestFailedConditionReplyLost(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	b := redistest.Start(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout)
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "old")), 201, "a")
	for _, header := range [][]string{{"If-Match", `"00000000000000000000000000000000"`}, {"If-None-Match", "*"}} {
		proxy.OnceContains(faultnet.ToServer, postKey("a"), faultnet.CutAtReply)
		w.wantUnavailable(t, "PUT", "/post?id=a", `{"title":"new"}`, notWrittenDetail, header...)
		wantProblem(t, w.do(t, "PUT", "/post?id=a", `{"title":"new"}`, header...), 412, "")
	}
	if have := stored(t, db, "a"); !strings.Contains(have, "old") {
		t.Errorf("Redis has %s, want the old post", have)
	}
}

// TestImportReplyLost loses the reply to a batch of an import.
func TestImportReplyLost(t *testing.T) {
	redistest.Require(t)
	b := redistest.Start(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout)
	wantSuccess(t, b.Client(t), w.do(t, "POST", "/create", line("a", "old")), 201, "a")
	for _, want := range []string{`"created":2,"replaced":1`, `"created":0,"replaced":3`} {
		proxy.OnceContains(faultnet.ToServer, postKey("a"), faultnet.CutAtReply)
		res := w.do(t, "POST", "/import", line("a", "new")+"\n"+line("b", "t")+"\n"+line("c", "t")+"\n")
		if !strings.Contains(string(res.body), `"written":3,`+want) || strings.Contains(string(res.body), `"unknown":1`) {
			t.Errorf("%d %s, want %s", res.status, res.body, want)
		}
	}
}

// TestAdviceForUnknownOutcomes loses all replies of Redis. The advice in the answer depends on the condition of the
// write.
func TestAdviceForUnknownOutcomes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, target, body string
		header, value        string
		advice               string
	}{
		"create":               {"POST", "/create", line("b", "t"), "", "", "sending the same post again is safe"},
		"put":                  {"PUT", "/post?id=b", `{"title":"t"}`, "", "", "sending the same post again is safe"},
		"put if it matches":    {"PUT", "/post?id=a", `{"title":"t"}`, "If-Match", "TAG", "still has the ETag that you sent"},
		"put if there":         {"PUT", "/post?id=a", `{"title":"t"}`, "If-Match", "*", "still has the ETag that you sent"},
		"create only":          {"PUT", "/post?id=c", `{"title":"t"}`, "If-None-Match", "*", "this write created it"},
		"delete":               {"DELETE", "/post?id=a", "", "", "", "a 404 may then mean"},
		"delete if it matches": {"DELETE", "/post?id=a", "", "If-Match", "TAG", "if the post is gone, this request may have deleted it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := redistest.StartEmbedded(t)
			proxy := faultnet.NewProxy(t, b.Addr())
			w := start(t, proxy.Addr(), defaultTimeout)
			etag := wantSuccess(t, b.Client(t), w.do(t, "POST", "/create", line("a", "t")), 201, "a")
			var header []string
			if tt.header != "" {
				header = []string{tt.header, strings.ReplaceAll(tt.value, "TAG", etag)}
			}
			proxy.BlackHole(faultnet.ToClient, true)
			w.wantUnavailable(t, tt.method, tt.target, tt.body, tt.advice, header...)
		})
	}
}

// TestRefusedByRedis writes to a Redis server that is a replica.
func TestRefusedByRedis(t *testing.T) {
	redistest.Require(t)
	b := redistest.Start(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
	if err := db.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	w.wantUnavailable(t, "POST", "/create", line("b", "t"), notWrittenDetail)
	if err := db.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	wantSuccess(t, db, w.do(t, "POST", "/create", line("b", "t")), 201, "b")
}

// TestClientDisconnects disconnects a client while its write waits for Redis: the write is completed.
func TestClientDisconnects(t *testing.T) {
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout)
	db := b.Client(t)
	proxy.Stall(faultnet.ToServer, true)

	// The connection is closed after the whole request has been sent, so the writer receives it.
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	body := line("a", "t")
	_, err = fmt.Fprintf(conn, "POST /create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	proxy.Stall(faultnet.ToServer, false)
	eventually.Nil(t, func() error {
		if stored(t, db, "a") == "" {
			return errors.New("post a is not in Redis")
		}
		return nil
	})
}

// TestStopDuringWrite stops a writer while a write is in flight: /ready reports the stop at once, the writer serves
// requests until the end of the drain, and the write is answered.
func TestStopDuringWrite(t *testing.T) {
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout, func(c *Config) { c.Drain = time.Second })
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")

	hook := proxy.OnceContains(faultnet.ToServer, postKey("b"), faultnet.SwallowReply)
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
	if got := <-answer; got != "201 Created" {
		t.Errorf("the write in flight was answered with %q, want 201 Created", got)
	}
	for err := range w.Done {
		if err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v, want at most 10s", took)
	}
}

// TestConcurrentConditionalWrites has clients replace one post, each with the ETag of the version that all have read:
// exactly one of them succeeds in each round.
func TestConcurrentConditionalWrites(t *testing.T) {
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
				t.Fatalf("%d clients replaced the post with ETag %s, want 1; Redis has %s", won, next, stored(t, db, "a"))
			}
			etag = next
		}
	})
}
