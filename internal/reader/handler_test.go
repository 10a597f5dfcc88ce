package reader

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

var paths = []string{"/post", "/post-redis", "/post-marshal"}

// TestRead reads posts of all kinds through all three routes and checks that the responses are the same,
// header by header.
func TestRead(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		before := publish(t, p, post.Post{ID: "before", Title: "written before the reader started"})
		r := startReady(t, b.Addr())
		posts := map[string]written{"before": before}
		for _, text := range []post.Post{
			{ID: "plain", Title: "t", Content: "c", Author: "a"},
			{ID: "a b&c=d/ü?%+", Title: "needs escapes"},
			{ID: strings.Repeat("x", post.MaxID), Title: "longest id"},
			{ID: "text", Title: `"<\>` + "\u2028\n\x00\x1f", Content: "\U0001F600"},
			{ID: "large", Title: "large", Content: strings.Repeat("\x01", 64<<10)},
			{ID: "empty", Title: "t"},
		} {
			posts[text.ID] = publish(t, p, text)
		}
		for id, w := range posts {
			for _, path := range paths {
				res := r.do(t, "GET", target(path, id), "X-Min-Version", w.token.String())
				want := http.Header{
					"Content-Type":   {"application/json"},
					"Content-Length": {fmt.Sprint(len(w.body))},
					"Cache-Control":  {"no-cache"},
					"Etag":           {w.etag},
					"X-Version":      {w.token.String()},
					"X-Served-By":    {"reader-under-test"},

					"X-Content-Type-Options": {"nosniff"},
				}
				checkRead(t, path+" "+id, res, 200, want, w.body)

				head := r.do(t, "HEAD", target(path, id))
				checkRead(t, "HEAD "+path+" "+id, head, 200, want, nil)

				for _, method := range []string{"GET", "HEAD"} {
					not := r.do(t, method, target(path, id), "If-None-Match", w.etag)
					have := maps.Clone(want)
					delete(have, "Content-Type")
					delete(have, "Content-Length")
					checkRead(t, method+" 304 "+path+" "+id, not, 304, have, nil)
				}
			}
		}
	})
}

func checkRead(t *testing.T, what string, res response, status int, want http.Header, body []byte) {
	t.Helper()
	got := maps.Clone(res.header)
	if got.Get("Date") == "" {
		t.Errorf("%s: no Date", what)
	}
	delete(got, "Date")
	delete(got, "Connection") // the test client sends Connection: close
	if res.status != status || !maps.EqualFunc(got, want, slices.Equal[[]string]) || !bytes.Equal(res.body, body) {
		t.Errorf("%s: %d, %v, %.80q, want %d, %v, %.80q", what, res.status, got, res.body, status, want, body)
	}
}

// TestHeaderNames checks the spelling of header names in the raw bytes, because net/http clients normalize
// it.
func TestHeaderNames(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	answer := r.raw(t, "GET /post?id=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	if lines[0] != "HTTP/1.1 200 OK" || body != string(w.body) {
		t.Fatalf("answer %q", answer)
	}
	for _, want := range []string{
		"Cache-Control: no-cache", fmt.Sprintf("Content-Length: %d", len(w.body)), "Content-Type: application/json",
		"ETag: " + w.etag, "X-Served-By: reader-under-test", "X-Version: " + w.token.String(),
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in %q", want, lines)
		}
	}
}

func TestReadErrors(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		w := publish(t, p, post.Post{ID: "a", Title: "t"})
		gone := publish(t, p, post.Post{ID: "gone", Title: "t"}).etag
		remove(t, p, "gone")
		r := startReady(t, b.Addr())

		tests := []struct {
			query  string
			header []string
			status int
			field  string
		}{
			{"", nil, 400, "id"},
			{"?", nil, 400, "id"},
			{"?id", nil, 400, "id"},
			{"?id=", nil, 400, "id"},
			{"?ID=a", nil, 400, "id"},
			{"?id=a&id=a", nil, 400, "id"},
			{"?id=a&id=", nil, 400, "id"},
			{"?id=%zz", nil, 400, "id"},
			{"?id=%", nil, 400, "id"},
			{"?id=a&x=%4", nil, 400, "id"},
			{"?id=%00", nil, 400, "id"},
			{"?id=a%0Ab", nil, 400, "id"},
			{"?id=%7f", nil, 400, "id"},
			{"?id=%c2%80", nil, 400, "id"},
			{"?id=%ff", nil, 400, "id"},
			{"?id=" + strings.Repeat("x", post.MaxID+1), nil, 400, "id"},
			{"?id=" + strings.Repeat("x", 5000), nil, 400, "id"},
			{"?id=a", []string{"X-Min-Version", ""}, 400, "X-Min-Version"},
			{"?id=a", []string{"X-Min-Version", "1"}, 400, "X-Min-Version"},
			{"?id=a", []string{"X-Min-Version", "0000000000000001-"}, 400, "X-Min-Version"},
			{"?id=a", []string{"X-Min-Version", "0000000000000001--1"}, 400, "X-Min-Version"},
			{"?id=a", []string{"X-Min-Version", w.token.String() + " "}, 200, ""}, // optional white space is not part of a value
			{"?id=a", []string{"X-Min-Version", w.token.String(), "X-Min-Version", w.token.String()}, 400, "X-Min-Version"},
			{"?id=unknown", nil, 404, "id"},
			{"?id=A", nil, 404, "id"},
			{"?id=a+", nil, 404, "id"},
			{"?id=gone", nil, 404, "id"},
			{"?id=gone", []string{"If-None-Match", gone}, 404, "id"},
			{"?id=gone", []string{"If-None-Match", "*"}, 404, "id"},
			{"?x=1&id=a&y=%20&z", nil, 200, ""}, // other parameters are ignored
			{"?%69d=%61", nil, 200, ""},
			{"?id=%61&x=;&y=a=b", nil, 200, ""},
			{"?id=a;x=y", nil, 404, "id"},
			{"?id=%61&id=%61", nil, 400, "id"},
		}
		for _, tt := range tests {
			for _, path := range paths {
				t.Run(path+tt.query+strings.Join(tt.header, ":"), func(t *testing.T) {
					res := r.do(t, "GET", path+tt.query, tt.header...)
					head := r.do(t, "HEAD", path+tt.query, tt.header...)
					delete(res.header, "Date")
					delete(head.header, "Date")
					if head.status != res.status || len(head.body) != 0 || !maps.EqualFunc(head.header, res.header, slices.Equal[[]string]) {
						t.Errorf("HEAD: %d %v, but GET: %d %v", head.status, head.header, res.status, res.header)
					}
					if tt.status == 200 {
						if res.status != 200 || !bytes.Equal(res.body, w.body) {
							t.Errorf("%d %s", res.status, res.body)
						}
						return
					}
					wantProblem(t, res, tt.status, tt.field)
				})
			}
		}
		for _, path := range append(paths, "/health", "/ready", "/status", "/metrics") {
			for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
				res := r.do(t, method, path+"?id=a")
				wantProblem(t, res, 405, "")
				if allow := res.header.Get("Allow"); allow != "GET, HEAD" {
					t.Errorf("%s %s: Allow %q", method, path, allow)
				}
			}
		}
		for _, path := range []string{"/", "/posts/", "/post/", "/POST", "//post", "/post/a", "/debug/pprof/"} {
			wantProblem(t, r.do(t, "GET", path+"?id=a"), 404, "")
		}
	})
}

func TestIfNoneMatch(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	other := `"00000000000000000000000000000000"`
	tests := []struct {
		lines  []string
		status int
	}{
		{nil, 200},
		{[]string{w.etag}, 304},
		{[]string{"W/" + w.etag}, 304},
		{[]string{"*"}, 304},
		{[]string{" * "}, 304},
		{[]string{other}, 200},
		{[]string{other + ", " + w.etag}, 304},
		{[]string{other + "," + w.etag + ", " + other}, 304},
		{[]string{`"x" , W/` + w.etag}, 304},
		{[]string{"," + w.etag + ","}, 304},
		{[]string{other, w.etag}, 304}, // two header lines are one list
		{[]string{other, other}, 200},
		{[]string{""}, 200},
		{[]string{","}, 200},
		{[]string{strings.Trim(w.etag, `"`)}, 200},                            // no quotes
		{[]string{strings.ToUpper(w.etag)}, 200},                              // compared byte by byte
		{[]string{"w/" + w.etag}, 200},                                        // the prefix is case-sensitive
		{[]string{"W/ " + w.etag}, 200},                                       // malformed
		{[]string{`"x" ` + w.etag}, 200},                                      // no comma
		{[]string{"x, " + w.etag}, 200},                                       // malformed before the match
		{[]string{w.etag + ", x"}, 304},                                       // malformed after the match
		{[]string{"*, " + w.etag}, 200},                                       // "*" only alone
		{[]string{"*", "*"}, 200},                                             // "*" only alone
		{[]string{`"` + strings.Trim(w.etag, `"`) + ` "`}, 200},               // not in a tag
		{[]string{strings.Repeat(other+", ", 200) + w.etag}, 304},             // a long list
		{[]string{strings.TrimSuffix(w.etag, `"`)}, 200},                      // cut off
		{[]string{strings.TrimSuffix(w.etag, `"`) + ", " + w.etag}, 200},      // cut off, then a comma in a tag
		{[]string{`"` + strings.Repeat("x", 8000) + `", "y", ` + other}, 200}, // only other tags
	}
	for _, tt := range tests {
		var header []string
		for _, line := range tt.lines {
			header = append(header, "If-None-Match", line)
		}
		for _, path := range paths {
			res := r.do(t, "GET", path+"?id=a", header...)
			if res.status != tt.status || res.header.Get("ETag") != w.etag || (len(res.body) == 0) != (tt.status == 304) {
				t.Errorf("%s, If-None-Match %.80q: %d, ETag %s, %d bytes, want %d", path, tt.lines, res.status, res.header.Get("ETag"), len(res.body), tt.status)
			}
		}
	}
}

// A header in one line is handled by the fast lane, one in two lines by net/http.
func TestIfMatch(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	other := `"00000000000000000000000000000000"`
	tests := []struct {
		lines  []string
		more   string // If-None-Match
		status int
	}{
		{[]string{w.etag}, "", 200},
		{[]string{"*"}, "", 200},
		{[]string{other + ", " + w.etag}, "", 200},
		{[]string{other, w.etag}, "", 200},
		{[]string{other}, "", 412},
		{[]string{other, other}, "", 412},
		{[]string{"W/" + w.etag}, "", 412}, // strong comparison
		{[]string{"W/" + w.etag + ", " + w.etag}, "", 200},
		{[]string{""}, "", 412},
		{[]string{strings.Trim(w.etag, `"`)}, "", 412},
		{[]string{"*", "*"}, "", 412},
		{[]string{w.etag}, w.etag, 304}, // If-Match is evaluated first
		{[]string{other}, w.etag, 412},
		{[]string{w.etag}, other, 200},
	}
	for _, tt := range tests {
		var header []string
		for _, line := range tt.lines {
			header = append(header, "If-Match", line)
		}
		if tt.more != "" {
			header = append(header, "If-None-Match", tt.more)
		}
		for _, path := range paths {
			res := r.do(t, "GET", path+"?id=a", header...)
			if res.status != tt.status {
				t.Errorf("%s, %q: %d, want %d", path, header, res.status, tt.status)
			}
			if tt.status == 412 {
				wantProblem(t, res, 412, "If-Match")
			}
			if head := r.do(t, "HEAD", path+"?id=a", header...); head.status != tt.status || len(head.body) > 0 {
				t.Errorf("HEAD %s, %q: %d with %d bytes, want %d", path, header, head.status, len(head.body), tt.status)
			}
		}
		// A condition is ignored if the response without it is not a success (RFC 9110, section 13.2.1).
		wantProblem(t, r.do(t, "GET", "/post?id=unknown", header...), 404, "id")
	}
}

// Requests that are refused before they reach a handler get a problem document with the usual headers.
func TestRefusals(t *testing.T) {
	r := startReady(t, redistest.StartEmbedded(t).Addr())
	long := strings.Repeat("x", 17<<10)
	for _, tt := range []struct {
		method, rest string
		status       int
	}{
		{"GET", "/post?id=a HTTP/1.1\r\n\r\n", 400},
		{"GET", "/post?id=a HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
		{"GET", "/post?id=a HTTP/3.1\r\nHost: a\r\n\r\n", 505},
		{"GET", "/post?id=a HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417},
		{"POST", "/post?id=a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
		{"GET", "/post?id=" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
		{"GET", "/post?id=a HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n", 431},
	} {
		for _, method := range []string{tt.method, "HEAD"} {
			raw := r.raw(t, method+" "+tt.rest)
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), &http.Request{Method: method})
			if err != nil {
				t.Errorf("%.40q: response %q: %v", tt.rest, raw, err)
				continue
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status || !res.Close || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Date") == "" {
				t.Errorf("%s %.40q: response %q", method, tt.rest, raw)
			}
			if method == "HEAD" {
				if len(body) > 0 || !strings.HasSuffix(raw, "\r\n\r\n") {
					t.Errorf("HEAD %.40q: response %q", tt.rest, raw)
				}
				continue
			}
			wantProblem(t, response{res.StatusCode, res.Header, body}, tt.status, "")
		}
	}
	for _, host := range []string{"]", "[::1", "a:80:90", "[::1]x", "[a]", "a:x"} {
		for _, path := range []string{"/post?id=a", "/health"} {
			raw := r.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
			if !strings.HasPrefix(raw, "HTTP/1.1 400 ") || !strings.Contains(raw, `"field":"Host"`) {
				t.Errorf("%s with Host %q: response %q", path, host, raw)
			}
		}
	}
}

// Every response of both lanes has X-Content-Type-Options: nosniff.
func TestNoSniffing(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	for _, target := range append([]string{"/post?id=unknown", "/post?id=", "/nowhere", "/health", "/metrics"}, target("/post", "a"), target("/post-redis", "a")) {
		for _, header := range [][]string{nil, {"If-None-Match", "*"}, {"If-Match", `"x"`}, {"If-Match", `"x"`, "If-Match", `"y"`}} {
			res := r.do(t, "GET", target, header...)
			if got := res.header["X-Content-Type-Options"]; !slices.Equal(got, []string{"nosniff"}) {
				t.Errorf("%s with %q: %d, %q", target, header, res.status, got)
			}
		}
	}
}

// FuzzIfNoneMatch checks that a header without the tag never matches. A false match would serve stale
// posts; a missed one only costs a body.
func FuzzIfNoneMatch(f *testing.F) {
	const etag = `"0123456789abcdef0123456789abcdef"`
	for _, list := range []string{etag, "W/" + etag, "*", `"x", ` + etag, ", ,", etag + etag, etag[1:], "* *"} {
		f.Add([]byte(list))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		got := matches(list, etag, true)
		switch {
		case got && !bytes.Contains(list, []byte(etag)) && strings.Trim(string(list), " \t") != "*":
			t.Errorf("%q matches", list)
		case !got && strings.Trim(string(list), " \t") == etag:
			t.Errorf("%q does not match", list)
		}
	})
}

// TestHitAllocatesNothing covers the code that both lanes share.
func TestHitAllocatesNothing(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	w := publish(t, p, post.Post{ID: "a", Title: "t"})
	g := newGetter(t, b.Addr())
	for _, tt := range []struct {
		name   string
		q      request
		status int
	}{
		{"200", request{id: []byte("a")}, 200},
		{"304", request{id: []byte("a"), ifNoneMatch: []byte(`"x", W/` + w.etag)}, 304},
		{"no match", request{id: []byte("a"), ifNoneMatch: []byte(`"x"`)}, 200},
		{"404", request{id: []byte("unknown")}, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a := g.get(t.Context(), &tt.q, fromMemory); a.status != tt.status || !a.hit {
				t.Fatalf("status %d, hit: %v", a.status, a.hit)
			}
			// ristretto occasionally allocates a Get buffer, which averages to less than one allocation per read.
			ctx := t.Context()
			if n := testing.AllocsPerRun(2000, func() { g.get(ctx, &tt.q, fromMemory) }); n != 0 {
				t.Errorf("%v allocations, want 0", n)
			}
		})
	}
}
