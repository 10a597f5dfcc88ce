package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

func wantProblem(t *testing.T, res *http.Response, body []byte, status int) {
	t.Helper()
	if res.StatusCode != status {
		t.Errorf("status %d, want %d: %s", res.StatusCode, status, body)
	}
	if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q, want a problem document", got)
	}
	if res.Request.Method == http.MethodHead {
		return
	}
	var p struct {
		Status int
		Title  string
		Detail string
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Errorf("body %s (%v), want a problem document of status %d with a detail", body, err, status)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	tests := []struct {
		method, path, body string
		chunked            bool
		want               int
	}{
		{method: "GET", path: "/post?id=1", want: 200},
		{method: "HEAD", path: "/post?id=1", want: 200},
		{method: "GET", path: "/post-redis?id=1", want: 200},
		{method: "HEAD", path: "/post-redis?id=1", want: 200},
		{method: "GET", path: "/post-marshal?id=1", want: 200},
		{method: "HEAD", path: "/post-marshal?id=1", want: 200},
		{method: "GET", path: "/health", want: 200},
		{method: "HEAD", path: "/health", want: 200},
		{method: "POST", path: "/post?id=1", want: 404},
		{method: "POST", path: "/post?id=1", body: "x", want: 404},
		{method: "PUT", path: "/post?id=1", body: "x", want: 404},
		{method: "DELETE", path: "/post?id=1", want: 404},
		{method: "OPTIONS", path: "/health", want: 404},
		{method: "PATCH", path: "/post-redis", want: 404},
		{method: "POST", path: "/health", want: 404},
		{method: "POST", path: "/create", body: "{}", want: 404},
		{method: "GET", path: "/create", want: 404},
		{method: "GET", path: "/", want: 404},
		{method: "GET", path: "/post/", want: 404},
		{method: "GET", path: "//post", want: 404},
		{method: "GET", path: "/x/../post", want: 404},
		{method: "GET", path: "/Post", want: 404},
		{method: "GET", path: "/ready", want: 404},
		{method: "GET", path: "/status", want: 404},
		{method: "GET", path: "/metrics", want: 404},
		{method: "GET", path: "/apisix/prometheus/metrics", want: 404},
		{method: "GET", path: "/post?id=1", body: "x", want: 400},
		{method: "GET", path: "/post?id=1", body: "x", chunked: true, want: 400},
		{method: "GET", path: "/post?id=1", body: strings.Repeat("x", maxBody), want: 400},
		{method: "GET", path: "/post?id=1", body: strings.Repeat("x", maxBody+1), want: 413},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s %s %d %v", test.method, test.path, len(test.body), test.chunked), func(t *testing.T) {
			var body io.Reader
			if test.body != "" {
				body = strings.NewReader(test.body)
			}
			if test.chunked {
				body = io.MultiReader(body) // hides the length, so that the client sends chunks
			}
			before := r.reads.Load()
			res, got, err := fetch(test.method, g.url(test.path), nil, body)
			if err != nil {
				t.Fatal(err)
			}
			reached := r.reads.Load() - before
			if test.want != 200 {
				wantProblem(t, res, got, test.want)
				if reached != 0 {
					t.Error("the request reached a reader")
				}
				return
			}
			if res.StatusCode != 200 || reached != 1 {
				t.Errorf("%s, %d requests reached a reader, want 200 and 1", res.Status, reached)
			}
			if want := strconv.Itoa(len(r.addr)); res.Header.Get("Content-Length") != want {
				t.Errorf("Content-Length %q, want %s", res.Header.Get("Content-Length"), want)
			}
		})
	}
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	for size, want := range map[int]int{8 << 10: 200, 15 << 10: 200, 21 << 10: 431, 1 << 20: 431} {
		res, body := do(t, http.MethodGet, g.url("/post?id=1"), http.Header{"X-Filler": {strings.Repeat("x", size)}})
		if res.StatusCode != want {
			t.Errorf("%d bytes of header: %s %s, want %d", size, res.Status, body, want)
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	seen := make(chan []string, 1)
	r := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Values("X-Request-Id")
		w.Header().Set("X-Request-Id", "the reader's own")
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	tests := []struct {
		name string
		sent []string
		kept bool
	}{
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"short", []string{"a"}, true},
		{"all kinds of visible ASCII", []string{"!~az09-_.:/\"\\"}, true},
		{"longest", []string{strings.Repeat("x", maxRequestID)}, true},
		{"too long", []string{strings.Repeat("x", maxRequestID+1)}, false},
		{"a space within", []string{"a b"}, false},
		{"a tab within", []string{"a\tb"}, false},
		{"not ASCII", []string{"ü"}, false},
		{"two", []string{"first", "second"}, true},
	}
	ids := make(map[string]bool)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			header := make(http.Header)
			if test.sent != nil {
				header["X-Request-Id"] = test.sent
			}
			res, _ := do(t, http.MethodGet, g.url("/post?id=1"), header)
			upstream, got := <-seen, res.Header.Values("X-Request-Id")
			if len(got) != 1 || !reflect.DeepEqual(got, upstream) {
				t.Fatalf("the client got %q, the reader %q: want the same single id", got, upstream)
			}
			if test.kept && got[0] != test.sent[0] {
				t.Errorf("id %q, want the client's %q", got[0], test.sent[0])
			}
			if !test.kept && !uuid.MatchString(got[0]) {
				t.Errorf("id %q, want a random UUID", got[0])
			}
			if ids[got[0]] {
				t.Errorf("id %q was assigned twice", got[0])
			}
			ids[got[0]] = true
		})
	}
	if res, _ := do(t, http.MethodGet, g.url("/nowhere"), nil); !uuid.MatchString(res.Header.Get("X-Request-Id")) {
		t.Error("an answer of the gateway itself has no id")
	}
}

func TestAnswersAreForwardedUnchanged(t *testing.T) {
	t.Parallel()
	big := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(big)
	r := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT") // fixed, so that the two answers can be compared
		h.Set("ETag", `"0cc175b9c0f1b6a831c399e269772661"`)
		h.Set("X-Version", "00000000000000ff-7")
		h.Set("X-Served-By", "reader-1")
		h.Set("X-Query", r.URL.RawQuery)
		h.Set("X-Saw", strings.Join([]string{r.Method, r.URL.EscapedPath(), r.Header.Get("X-Min-Version"),
			r.Header.Get("Accept-Encoding"), r.Header.Get("User-Agent"), r.Header.Get("If-None-Match")}, "|"))
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-cache")
		switch id := r.URL.Query().Get("id"); {
		case r.Header.Get("If-None-Match") != "":
			w.WriteHeader(http.StatusNotModified)
		case id == "big":
			h.Set("Content-Length", strconv.Itoa(len(big)))
			w.Write(big)
		case id == "chunked":
			w.Write(big[:70_000])
			http.NewResponseController(w).Flush()
			w.Write(big[70_000:])
		case id == "unknown":
			http.Error(w, `{"status":404}`, http.StatusNotFound)
		case id == "zipped":
			h.Set("Content-Encoding", "gzip")
			io.WriteString(w, "not really gzip")
		default:
			h.Set("Content-Length", "11")
			io.WriteString(w, `{"id":"x"}`+"\n")
		}
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	tests := []struct {
		path   string
		header http.Header
	}{
		{"/post?id=1", nil},
		{"/post?id=big", nil},
		{"/post?id=chunked", nil},
		{"/post?id=unknown", nil},
		{"/post?id=zipped", http.Header{"Accept-Encoding": {"gzip"}}},
		{"/post?id=1", http.Header{"If-None-Match": {`W/"a", "0cc175b9c0f1b6a831c399e269772661"`}}},
		{"/post?id=1", http.Header{"X-Min-Version": {"00000000000000ff-7"}}},
		{"/post?id=1", http.Header{"User-Agent": {"me"}}},
		{"/post?id=a;b&id=%zz&x=+%20", nil},
		{"/post?", nil},
		{"/p%6Fst?id=1", nil},
		{"/post-redis?id=1", nil},
		{"/post-marshal?id=1", nil},
	}
	for _, test := range tests {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			t.Run(fmt.Sprint(method, test.path, test.header), func(t *testing.T) {
				direct, want := do(t, method, "http://"+r.addr+test.path, test.header)
				through, got := do(t, method, g.url(test.path), test.header)
				through.Header.Del("X-Request-Id")
				if direct.StatusCode != through.StatusCode || direct.ContentLength != through.ContentLength ||
					!reflect.DeepEqual(direct.TransferEncoding, through.TransferEncoding) {
					t.Errorf("direct %d, %d bytes, %v; through the gateway %d, %d bytes, %v",
						direct.StatusCode, direct.ContentLength, direct.TransferEncoding,
						through.StatusCode, through.ContentLength, through.TransferEncoding)
				}
				if !reflect.DeepEqual(direct.Header, through.Header) {
					t.Errorf("headers direct\n%v\nthrough the gateway\n%v", direct.Header, through.Header)
				}
				if !bytes.Equal(want, got) {
					t.Errorf("a body of %d bytes differs from the reader's body of %d bytes", len(got), len(want))
				}
			})
		}
	}
}

func TestTruncatedBodyIsAnError(t *testing.T) {
	t.Parallel()
	r := newReader(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 100_000))
		panic(http.ErrAbortHandler)
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	if res, body, err := fetch(http.MethodGet, g.url("/post?id=1"), nil, nil); err == nil {
		t.Errorf("%s with %d bytes, want an error", res.Status, len(body))
	}
	want := "code=200 consumer= matched_host= matched_uri=/post node=" + r.addr + " route=post service="
	eventually.True(t, "the broken answer is counted", func() bool {
		return samples(g.families(t)["apisix_http_status"])[want] == 1
	})
}

func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	r := newReader(t, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		io.WriteString(w, "done")
	})
	g := start(t, Config{Readers: []string{r.addr}, Timeout: patience})
	g.awaitReady(t, 1)
	answer := make(chan string, 1)
	go func() {
		res, body, err := fetch(http.MethodGet, g.url("/post?id=1"), nil, nil)
		answer <- fmt.Sprint(res != nil && res.StatusCode == http.StatusOK, string(body), err)
	}()
	<-arrived
	ended := make(chan error, 1)
	go func() { ended <- g.stop() }()
	eventually.True(t, "no connection is accepted", func() bool {
		conn, _, err := fetch(http.MethodGet, g.url("/nowhere"), http.Header{"Connection": {"close"}}, nil)
		return err != nil || conn == nil
	})
	select {
	case err := <-ended:
		t.Fatalf("Run ended with a request in flight: %v", err)
	default:
	}
	close(release)
	if got := <-answer; got != "truedone<nil>" {
		t.Errorf("the request in flight got %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, line := range []string{"gateway stopping", "gateway stopped"} {
		if !strings.Contains(g.logs.String(), line) {
			t.Errorf("the log has no line %q:\n%s", line, g.logs)
		}
	}
}
