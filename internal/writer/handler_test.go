package writer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

func TestCreate(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		for _, id := range []string{"a", "a b&c=d/ü?%+", strings.Repeat("x", post.MaxID)} {
			body := fmt.Sprintf(`{"id":%q,"title":"t","content":"c","author":"m"}`, id)
			res := w.do(t, "POST", "/create", body, "Content-Type", "application/json")
			first := wantSuccess(t, db, res, 201, id)
			if got, want := res.header.Get("Location"), "/post?id="+url.QueryEscape(id); got != want {
				t.Errorf("Location %q, want %q", got, want)
			}
			if have := stored(t, db, id); !strings.HasPrefix(have, strings.TrimSuffix(body, "}")+`,"timestamp":`) {
				t.Errorf("%s was sent, Redis has %s", body, have)
			}
			waitForNextTimestamp(t)
			res = w.do(t, "POST", "/create", body, "Content-Type", "application/json; charset=UTF-8")
			if second := wantSuccess(t, db, res, 200, id); second == first {
				t.Error("the ETag is the same for a later timestamp")
			}
			if got := res.header.Get("Location"); got != "" {
				t.Errorf("Location %q for a post that existed, want none", got)
			}
		}
	})
}

func TestPut(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	for i, tt := range []struct {
		id, body string
	}{
		{"a", `{"id":"a","title":"t"}`},
		{"a", `{"title":"t"}`},
		{"a", " {\n\"title\":\"t\",\"content\":\"{\"}"},
		{"b c/ü", `{"title":"t"}`},
		{"b c/ü", `{"id":"b c/ü","title":"t"}`},
		{`quote"\`, `{"title":"t"}`},
	} {
		status := 200
		if i == 0 || i == 3 || i == 5 {
			status = 201
		}
		wantSuccess(t, db, w.do(t, "PUT", "/post?id="+url.QueryEscape(tt.id), tt.body), status, tt.id)
	}
	before := version(t, db)
	for _, tt := range []struct {
		query, body string
		status      int
		field       string
	}{
		{"", `{"title":"t"}`, 400, "id"},
		{"?id=", `{"title":"t"}`, 400, "id"},
		{"?id=a&id=a", `{"title":"t"}`, 400, "id"},
		{"?id=%zz", `{"title":"t"}`, 400, "id"},
		{"?id=%00", `{"title":"t"}`, 400, "id"},
		{"?id=" + strings.Repeat("x", post.MaxID+1), `{"title":"t"}`, 400, "id"},
		{"?id=a", `{"id":"b","title":"t"}`, 400, "id"},
		{"?id=a", `{"id":"","title":"t"}`, 400, "id"},
		{"?id=a", `{"id":"A","title":"t"}`, 400, "id"},
		{"?id=a", `{"id":"a","id":"a","title":"t"}`, 400, "id"},
		{"?id=a", `{"id":7,"title":"t"}`, 400, "id"},
		{"?id=a", `{"id":"` + strings.Repeat("x", post.MaxID+1) + `","title":"t"}`, 413, "id"},
		{"?id=a", `{}`, 400, "title"},
		{"?id=a", `{ }`, 400, "title"},
		{"?id=a", `{"content":"c"}`, 400, "title"},
		{"?id=a", `{"title":"t","x":"y"}`, 400, "x"},
		{"?id=a", `["title"]`, 400, ""},
		{"?id=a", ``, 400, ""},
		{"?id=a", `{`, 400, ""},
	} {
		wantProblem(t, w.do(t, "PUT", "/post"+tt.query, tt.body), tt.status, tt.field)
	}
	if after := version(t, db); after != before {
		t.Errorf("refused requests changed version %s to %s", before, after)
	}
}

// TestInvalidPosts sends invalid posts; nothing is written.
func TestInvalidPosts(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		body   string
		header []string
		status int
		field  string
		limit  int
	}{
		{``, nil, 400, "", 0},
		{`null`, nil, 400, "", 0},
		{`[]`, nil, 400, "", 0},
		{`{"id":"a","title":"t"`, nil, 400, "", 0},
		{`{"id":"a","title":"t"}{}`, nil, 400, "", 0},
		{`{"id":"a","title":"t"} x`, nil, 400, "", 0},
		{`{"title":"t"}`, nil, 400, "id", 0},
		{`{"id":"a"}`, nil, 400, "title", 0},
		{`{"id":"a","title":""}`, nil, 400, "title", 0},
		{`{"id":"a","title":null}`, nil, 400, "title", 0},
		{`{"id":"a","title":1}`, nil, 400, "title", 0},
		{`{"id":"a\n","title":"t"}`, nil, 400, "id", 0},
		{`{"id":"a","title":"t","title":"t"}`, nil, 400, "title", 0},
		{`{"id":"a","title":"t","Title":"t"}`, nil, 400, "Title", 0},
		{`{"id":"a","title":"t","hash":["t"]}`, nil, 400, "hash", 0},
		{"{\"id\":\"a\",\"title\":\"\xff\"}", nil, 400, "title", 0},
		{`{"id":"` + long(post.MaxID+1) + `","title":"t"}`, nil, 413, "id", post.MaxID},
		{`{"id":"a","title":"` + long(post.MaxTitle+1) + `"}`, nil, 413, "title", post.MaxTitle},
		{`{"id":"a","title":"t","author":"` + long(post.MaxAuthor+1) + `"}`, nil, 413, "author", post.MaxAuthor},
		{`{"id":"a","title":"t","content":"` + long(post.MaxContent+1) + `"}`, nil, 413, "content", post.MaxContent},
		{`{"id":"a","title":"t"` + strings.Repeat(" ", post.MaxBody) + `}`, nil, 413, "", post.MaxBody},
		{`{"id":"a","title":"t"}`, []string{"Content-Type", "text/plain"}, 415, "Content-Type", 0},
		{`{"id":"a","title":"t"}`, []string{"Content-Type", "application/json; charset=latin1"}, 415, "Content-Type", 0},
		{`{"id":"a","title":"t"}`, []string{"Content-Type", "application/json; charset=utf-16"}, 415, "Content-Type", 0},
		{`{"id":"a","title":"t"}`, []string{"Content-Type", "application/json; charset"}, 415, "Content-Type", 0},
		{`{"id":"a","title":"t"}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "Content-Type", 0},
		{`{"id":"a","title":"t"}`, []string{"Content-Encoding", "gzip"}, 415, "Content-Encoding", 0},
		{`{"id":"a","title":"t"}`, []string{"If-Match", "a"}, 400, "If-Match", 0},
		{`{"id":"a","title":"t"}`, []string{"If-None-Match", `"a"`}, 400, "If-None-Match", 0},
	} {
		p := wantProblem(t, w.do(t, "POST", "/create", tt.body, tt.header...), tt.status, tt.field)
		if p.Limit != tt.limit {
			t.Errorf("%.60s: limit %d, want %d", tt.body, p.Limit, tt.limit)
		}
	}
	if got := version(t, db); got != "0" {
		t.Errorf("version %s, want 0: an invalid post was written", got)
	}
	if keys := b.Keys(); len(keys) != 0 {
		t.Errorf("keys %q were written", keys)
	}
}

// TestAcceptedForms sends a post back in the form in which readers serve it, and posts in other forms that clients
// produce.
func TestAcceptedForms(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", `{"id":"a","title":"old","content":"c"}`), 201, "a")
	read := stored(t, db, "a")
	edited := strings.Replace(read, "old", "new", 1)
	wantSuccess(t, db, w.do(t, "PUT", "/post?id=a", edited, "If-Match", post.ETag(read)), 200, "a")
	if have := stored(t, db, "a"); !strings.Contains(have, `"title":"new","content":"c"`) || post.ETag(have) == post.ETag(read) {
		t.Errorf("%s was sent, Redis has %s", edited, have)
	}
	wantSuccess(t, db, w.do(t, "POST", "/create", edited), 200, "a")

	for _, body := range []string{
		`{"id":"b","title":"t","content":null,"author":null}`,
		"\ufeff" + `{"id":"b","title":"t"}`,
	} {
		w.do(t, "DELETE", "/post?id=b", "")
		wantSuccess(t, db, w.do(t, "POST", "/create", body), 201, "b")
		if have := stored(t, db, "b"); !strings.Contains(have, `{"id":"b","title":"t","content":"","author":"",`) {
			t.Errorf("%q was sent, Redis has %s", body, have)
		}
	}
	wantSuccess(t, db, w.do(t, "PUT", "/post?id=b", "\ufeff"+`{"title":"t"}`), 200, "b")
	lines := "\ufeff" + stored(t, db, "a") + "\n" + stored(t, db, "b") + "\n" + `{"id":"c","title":"t","author":null}`
	res := w.do(t, "POST", "/import", lines, "Content-Type", "application/x-ndjson; charset=UTF8")
	if !strings.Contains(string(res.body), `"written":3,"created":1,"replaced":2`) {
		t.Errorf("import of served posts: %d %s", res.status, res.body)
	}
	for _, charset := range []string{"utf-8", "UTF-8", "Utf-8", "utf8", "UTF8", `"utf-8"`} {
		wantSuccess(t, db, w.do(t, "PUT", "/post?id=b", `{"title":"t"}`, "Content-Type", "application/json;charset="+charset), 200, "b")
	}
}

func TestDelete(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		wantSuccess(t, db, w.do(t, "POST", "/create", `{"id":"a b","title":"t"}`), 201, "a b")
		res := w.do(t, "DELETE", "/post?id=a%20b", "")
		token, err := protocol.ParseToken(res.header.Get("X-Version"))
		if res.status != 204 || len(res.body) != 0 || err != nil || token.Version != 2 {
			t.Errorf("%d %v %s", res.status, res.header, res.body)
		}
		if have := stored(t, db, "a b"); have != "" {
			t.Errorf("Redis still has %s", have)
		}
		wantProblem(t, w.do(t, "DELETE", "/post?id=a%20b", ""), 404, "id")
		wantProblem(t, w.do(t, "DELETE", "/post?id=never", ""), 404, "id")
		wantProblem(t, w.do(t, "DELETE", "/post", ""), 400, "id")
		wantProblem(t, w.do(t, "DELETE", "/post?id=a&id=b", ""), 400, "id")
		wantProblem(t, w.do(t, "DELETE", "/post?id=%0a", ""), 400, "id")
		if got := version(t, db); got != "2" {
			t.Errorf("version %s, want 2", got)
		}
		wantSuccess(t, db, w.do(t, "POST", "/create", `{"id":"a b","title":"t"}`), 201, "a b")
	})
}

func TestConditions(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		other := `"00000000000000000000000000000000"`
		const there, absent = true, false
		const weak = -412 // 412 whose detail explains that the tag is weak
		for i, tt := range []struct {
			exists bool
			header []string // TAG is replaced with the ETag of the post
			put    int      // status of a PUT
			delete int      // status of a DELETE
		}{
			{there, nil, 200, 204},
			{absent, nil, 201, 404},
			{there, []string{"If-Match", "TAG"}, 200, 204},
			{there, []string{"If-Match", other}, 412, 412},
			{there, []string{"If-Match", other + ", TAG"}, 200, 204},
			{there, []string{"If-Match", other, "If-Match", "TAG"}, 200, 204},
			{there, []string{"If-Match", "W/TAG"}, weak, weak},
			{there, []string{"If-Match", `W/TAG, "foreign"`}, weak, weak},
			{there, []string{"If-Match", "W/TAG, " + other}, 412, 412},
			{there, []string{"If-Match", "W/TAG, TAG"}, 200, 204},
			{absent, []string{"If-Match", "W/TAG"}, weak, weak},
			{there, []string{"If-Match", `"foreign"`}, 412, 412},
			{there, []string{"If-Match", ""}, 412, 412}, // an empty list contains no matching tag
			{there, []string{"If-Match", "*"}, 200, 204},
			{there, []string{"If-Match", "TAG x"}, 400, 400},
			{there, []string{"If-Match", "x"}, 400, 400},
			{there, []string{"If-Match", "TAG, *"}, 400, 400},
			{absent, []string{"If-Match", "TAG"}, 412, 412},
			{absent, []string{"If-Match", "*"}, 412, 412},
			{there, []string{"If-None-Match", "*"}, 412, 400},
			{absent, []string{"If-None-Match", "*"}, 201, 400},
			{there, []string{"If-None-Match", "TAG"}, 400, 400},
			{there, []string{"If-None-Match", other}, 400, 400},
			{there, []string{"If-Match", "TAG", "If-None-Match", "*"}, 400, 400},
		} {
			for _, method := range []string{"PUT", "DELETE"} {
				id := fmt.Sprintf("%s-%d", method, i)
				etag := `"11111111111111111111111111111111"`
				if tt.exists {
					etag = wantSuccess(t, db, w.do(t, "POST", "/create", `{"id":"`+id+`","title":"t"}`), 201, id)
				}
				header := make([]string, len(tt.header))
				for i, h := range tt.header {
					header[i] = strings.ReplaceAll(h, "TAG", etag)
				}
				have, at, want, body := stored(t, db, id), version(t, db), tt.delete, ""
				if method == "PUT" {
					want, body = tt.put, `{"title":"new"}`
				}
				res := w.do(t, method, "/post?id="+id, body, header...)
				switch {
				case want == 204:
					if res.status != 204 || stored(t, db, id) != "" {
						t.Errorf("%s %v: %d %s", method, header, res.status, res.body)
					}
					continue
				case want > 0 && want < 300:
					wantSuccess(t, db, res, want, id)
					continue
				case want == 400:
					wantProblem(t, res, 400, header[len(header)-2])
				case want == 404:
					wantProblem(t, res, 404, "id")
				case want == weak:
					if p := wantProblem(t, res, 412, "If-Match"); !strings.Contains(p.Detail, "W/") {
						t.Errorf("%s %v: detail %q does not mention W/", method, header, p.Detail)
					}
				default:
					wantProblem(t, res, 412, "")
				}
				if now := stored(t, db, id); now != have || version(t, db) != at {
					t.Errorf("%s %v answered %d and changed %q to %q", method, header, want, have, now)
				}
			}
		}
	})
}

func TestPaths(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	for _, tt := range []struct {
		method, path, allow string
	}{
		{"GET", "/create", "POST"},
		{"PUT", "/create", "POST"},
		{"GET", "/post?id=a", "DELETE, PUT"},
		{"POST", "/post?id=a", "DELETE, PUT"},
		{"GET", "/import", "POST"},
		{"PUT", "/import", "POST"},
		{"POST", "/health", "GET, HEAD"},
		{"POST", "/ready", "GET, HEAD"},
		{"POST", "/metrics", "GET, HEAD"},
	} {
		res := w.do(t, tt.method, tt.path, "")
		wantProblem(t, res, 405, "")
		if got := res.header.Get("Allow"); got != tt.allow {
			t.Errorf("%s %s: Allow %q, want %q", tt.method, tt.path, got, tt.allow)
		}
	}
	for _, path := range []string{"/", "/posts", "/create/", "//create"} {
		wantProblem(t, w.do(t, "POST", path, `{"id":"a","title":"t"}`), 404, "")
	}
	eventually.True(t, "ready writer", func() bool { return w.do(t, "GET", "/ready", "").status == 200 })
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		if res := w.do(t, "GET", path, ""); res.status != 200 || len(res.body) == 0 {
			t.Errorf("GET %s: %d %s", path, res.status, res.body)
		}
		if res := w.do(t, "HEAD", path, ""); res.status != 200 || len(res.body) != 0 {
			t.Errorf("HEAD %s: %d %s", path, res.status, res.body)
		}
	}
}

// TestRedirect follows the Location of a new post to the reader.
func TestRedirect(t *testing.T) {
	b := redistest.StartEmbedded(t)
	received := []string{""} // requests to the reader
	reader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received = append(received, r.Method+" "+r.URL.RequestURI())
	}))
	defer reader.Close()
	w := start(t, b.Addr(), func(c *Config) { c.ReaderURL, c.Token = reader.URL+"/", "secret" })
	res := w.do(t, "POST", "/create", `{"id":"a b&c/ü","title":"t"}`, "Authorization", "Bearer secret")
	location := res.header.Get("Location")
	for _, target := range []string{location, "/post"} { // a missing id is redirected too, and the reader reports it
		for _, method := range []string{"GET", "HEAD"} { // without a token: reads require none
			req, err := http.NewRequest(method, w.URL+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultTransport.RoundTrip(req) // does not follow redirects
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got, want := res.Header.Get("Location"), reader.URL+target; res.StatusCode != 307 || got != want {
				t.Errorf("%s %s: %d, Location %q, want %q", method, target, res.StatusCode, got, want)
			}
			w.do(t, method, target, "") // follows redirects
			if last := received[len(received)-1]; last != method+" "+target {
				t.Errorf("the reader received %q, want %q", last, method+" "+target)
			}
		}
	}
	res = w.do(t, "POST", "/post?id=a", "")
	wantProblem(t, res, 405, "")
	if got := res.header.Get("Allow"); got != "DELETE, GET, HEAD, PUT" {
		t.Errorf("Allow %q", got)
	}
	for _, bad := range []string{"localhost:9080", "/post", "ftp://a", "http://", "http://a/?x=y", "http://a/#f", "http://u:p@a", "http://a b"} {
		if _, err := ParseConfig([]string{"-reader-url", bad}, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "READER_URL") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestToken(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr(), func(c *Config) { c.Token = "the-token" })
	db := b.Client(t)
	writes := []struct{ method, path, body string }{
		{"POST", "/create", `{"id":"a","title":"t"}`},
		{"PUT", "/post?id=a", `{"title":"t"}`},
		{"POST", "/import", `{"id":"a","title":"t"}`},
		{"DELETE", "/post?id=a", ``},
	}
	for _, write := range writes {
		for _, header := range [][]string{
			nil,
			{"Authorization", ""},
			{"Authorization", "Bearer"},
			{"Authorization", "Bearer "},
			{"Authorization", "Bearer the-toke"},
			{"Authorization", "Bearer the-token2"},
			{"Authorization", "Bearer The-Token"},
			{"Authorization", "Basic the-token"},
			{"Authorization", "the-token"},
			{"Authorization", "Bearer the-token", "Authorization", "Bearer the-token"},
		} {
			res := w.do(t, write.method, write.path, write.body, header...)
			wantProblem(t, res, 401, "Authorization")
			if got := res.header.Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("WWW-Authenticate %q", got)
			}
		}
	}
	if got := version(t, db); got != "0" {
		t.Errorf("version %s, want 0: a request without the token was executed", got)
	}
	for _, write := range writes {
		for _, scheme := range []string{"Bearer", "bearer", "BEARER "} {
			res := w.do(t, write.method, write.path, write.body, "Authorization", scheme+" the-token")
			if res.status >= 300 && (write.method != "DELETE" || res.status != 404) {
				t.Errorf("%s %s: %d %s", write.method, write.path, res.status, res.body)
			}
		}
	}
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		if res := w.do(t, "GET", path, ""); res.status != 200 {
			t.Errorf("GET %s without a token: %d, want 200", path, res.status)
		}
	}
}

// The cookie of a write has the position after it; other answers have none, and by default no answer has one.
func TestConsistencyCookie(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr(), func(c *Config) { c.ConsistencyCookie = true })
	for _, tt := range []struct {
		method, target, body string
		written              bool
	}{
		{"POST", "/create", `{"id":"a","title":"t"}`, true},
		{"PUT", "/post?id=a", `{"title":"u"}`, true},
		{"DELETE", "/post?id=a", "", true},
		{"DELETE", "/post?id=a", "", false},
		{"POST", "/create", `{"id":""}`, false},
	} {
		res := w.do(t, tt.method, tt.target, tt.body, "Content-Type", "application/json")
		cookies := (&http.Response{Header: res.header}).Cookies()
		if !tt.written {
			if len(cookies) > 0 {
				t.Errorf("%s %s: cookies %v, want none", tt.method, tt.body, cookies)
			}
			continue
		}
		if len(cookies) != 1 {
			t.Fatalf("%s %s: cookies %v, want one", tt.method, tt.body, cookies)
		}
		c := cookies[0]
		at, err := protocol.ParsePosition(c.Value)
		if err != nil || at.WriteID == 0 || at.Token().String() != res.header.Get("X-Version") {
			t.Errorf("cookie %q (%v), X-Version %s", c.Value, err, res.header.Get("X-Version"))
		}
		if c.Name != "posts_version" || c.Path != "/" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 60 || c.Domain != "" {
			t.Errorf("cookie %q", c.Raw)
		}
	}
	res := start(t, b.Addr()).do(t, "POST", "/create", `{"id":"a","title":"t"}`, "Content-Type", "application/json")
	if got := res.header.Values("Set-Cookie"); got != nil {
		t.Errorf("cookies %q by default", got)
	}
}
