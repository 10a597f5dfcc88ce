package reader

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redistest"
)

var paths = []string{"/post", "/post-redis", "/post-marshal"}

// TestRead asks in all three ways for posts of all kinds: the answers are the same, header for
// header.
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
	delete(got, "Connection") // the client of the tests asks for close
	if res.status != status || !maps.EqualFunc(got, want, slices.Equal[[]string]) || !bytes.Equal(res.body, body) {
		t.Errorf("%s: %d, %v, %.80q, want %d, %v, %.80q", what, res.status, got, res.body, status, want, body)
	}
}

// TestHeaderNames looks at the bytes: clients of net/http see names in another spelling.
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
			{"?id=a", []string{"X-Min-Version", w.token.String() + " "}, 200, ""}, // optional white space is no part of a value
			{"?id=a", []string{"X-Min-Version", w.token.String(), "X-Min-Version", w.token.String()}, 400, "X-Min-Version"},
			{"?id=unknown", nil, 404, "id"},
			{"?id=A", nil, 404, "id"},
			{"?id=a+", nil, 404, "id"},
			{"?id=gone", nil, 404, "id"},
			{"?id=gone", []string{"If-None-Match", gone}, 404, "id"},
			{"?id=gone", []string{"If-None-Match", "*"}, 404, "id"},
			{"?x=1&id=a&y=%20&z", nil, 200, ""}, // other parameters do not matter
			{"?%69d=%61", nil, 200, ""},
		}
		for _, tt := range tests {
			for _, path := range paths {
				t.Run(path+tt.query+strings.Join(tt.header, ":"), func(t *testing.T) {
					res := r.do(t, "GET", path+tt.query, tt.header...)
					head := r.do(t, "HEAD", path+tt.query, tt.header...)
					delete(res.header, "Date")
					delete(head.header, "Date")
					if head.status != res.status || len(head.body) != 0 || !maps.EqualFunc(head.header, res.header, slices.Equal[[]string]) {
						t.Errorf("HEAD answers %d %v, GET %d %v", head.status, head.header, res.status, res.header)
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
		for _, path := range []string{"/", "/posts", "/post/", "/POST", "//post", "/post/a", "/debug/pprof/"} {
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
		{[]string{`"` + strings.Repeat("x", 8000) + `", "y", ` + other}, 200}, // nothing of the kind
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

// FuzzIfNoneMatch checks the one thing that would be wrong and not only wasteful: a match of a
// header that does not have the tag.
func FuzzIfNoneMatch(f *testing.F) {
	const etag = `"0123456789abcdef0123456789abcdef"`
	for _, list := range []string{etag, "W/" + etag, "*", `"x", ` + etag, ", ,", etag + etag, etag[1:], "* *"} {
		f.Add([]byte(list))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		got := matches(list, etag)
		switch {
		case got && !bytes.Contains(list, []byte(etag)) && strings.Trim(string(list), " \t") != "*":
			t.Errorf("%q matches", list)
		case !got && strings.Trim(string(list), " \t") == etag:
			t.Errorf("%q does not match", list)
		}
	})
}

// TestHitAllocatesNothing is about what both lanes share.
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
			// A Get-buffer of ristretto's now and then is less than one allocation a read.
			ctx := t.Context()
			if n := testing.AllocsPerRun(2000, func() { g.get(ctx, &tt.q, fromMemory) }); n != 0 {
				t.Errorf("%v allocations, want 0", n)
			}
		})
	}
}
