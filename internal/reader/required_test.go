package reader

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// A 503 names the part of the request that the reader could not fulfil: X-Min-Version, the cookie, or the position of the
// page before, in every combination of them. A client that omits or repeats the wrong one would get no further.
func TestRefusalsNameWhatIsMissing(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	has := publish(t, p, post.Post{ID: "a", Title: "t"})
	proxy := faultnet.NewProxy(t, b.Addr())
	g := newGetter(t, proxy.Addr())
	g.budget = 10 * time.Millisecond // nothing arrives any more
	h := &handler{getter: g, hold: func(http.ResponseWriter, string) func() { return func() {} }}
	proxy.Refuse(true)
	proxy.Reset()
	lacks := publish(t, p, post.Post{ID: "a", Title: "u"})

	type required struct {
		value string // "" for none
		known bool   // the reader has it
	}
	headers := []required{{"", true}, {has.token.String(), true}, {has.position(), true}, {lacks.token.String(), false}, {lacks.position(), false}, {latest, false}}
	positions := []required{{"", true}, {has.position(), true}, {lacks.position(), false}} // of the cookie and of the page before
	for target, serve := range map[string]http.HandlerFunc{
		"/post?id=a": h.serve(fromMemory), "/post-marshal?id=a": h.serve(fromMarshal), "/post-redis?id=a": h.serve(fromRedis),
		"/posts?id=a": h.servePosts, "/posts?limit=1": h.servePosts,
	} {
		for _, header := range headers {
			for _, cookie := range positions {
				for _, since := range positions {
					if since.value != "" && target != "/posts?limit=1" {
						continue
					}
					for _, waiting := range []int32{0, maxBehind} {
						want := ""
						switch {
						case !header.known:
							want = "X-Min-Version"
						case !cookie.known && header.value != latest: // latest includes the cookie
							want = "Cookie"
						case !since.known:
							want = "since"
						case target == "/post-redis?id=a":
							want = "id" // it always needs Redis
						}
						url := target
						if since.value != "" {
							url += "&after=0&since=" + since.value
						}
						r := httptest.NewRequest(http.MethodGet, url, nil)
						if header.value != "" {
							r.Header.Set("X-Min-Version", header.value)
						}
						if cookie.value != "" {
							r.Header.Set("Cookie", httpkit.VersionCookie+"="+cookie.value)
						}
						g.behind.Store(waiting)
						w := httptest.NewRecorder()
						serve(w, r)
						what := fmt.Sprintf("%s with X-Min-Version %q, cookie %q, %d waiting", url, header.value, cookie.value, waiting)
						if want == "" {
							if w.Code != http.StatusOK {
								t.Errorf("%s: %d %s, want 200", what, w.Code, w.Body)
							}
							continue
						}
						var problem httpkit.Problem
						if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Code != http.StatusServiceUnavailable || problem.Field != want {
							t.Errorf("%s: %d %s, want 503 and %s", what, w.Code, w.Body, want)
						}
						if n := g.behind.Load(); n != waiting {
							t.Errorf("%s: %d reads count as waiting afterwards", what, n)
						}
					}
				}
			}
		}
	}
}

// A stream that cannot resume names where the position came from: Last-Event-ID, or since.
func TestGoneNamesThePosition(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	never := protocol.Position{Head: protocol.Head{Epoch: w.token.Epoch + 1, Version: 1, WriteID: 1}}.String()
	for _, tt := range []struct {
		target, field string
		header        []string
	}{
		{"/changes?since=" + never, "since", []string{"Accept", streamType}},
		{"/changes", lastEventID, []string{"Accept", streamType, lastEventID, never}},
		{"/changes?since=" + w.position(), lastEventID, []string{"Accept", streamType, lastEventID, never}},
		{"/changes?wait=0&since=" + never, "since", []string{lastEventID, never}}, // a poll ignores the header
	} {
		wantProblem(t, r.do(t, "GET", tt.target, tt.header...), http.StatusGone, tt.field)
	}
}
