package writer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"heavy-read-api/internal/test/redistest"
)

// A post that arrives as a whole bypasses net/http's server, and a chunked one does not. Both get the same answer.
func TestLanesOfCreateAnswerAlike(t *testing.T) {
	open := start(t, redistest.StartEmbedded(t).Addr())
	guarded := start(t, redistest.StartEmbedded(t).Addr(), func(c *Config) { c.Token = "secret" })
	const valid, asJSON = `{"id":"a","title":"t"}`, "Content-Type: application/json"
	for _, tt := range []struct {
		name, body string
		status     int
		fields     []string
	}{
		{"a post", valid, 200, []string{asJSON}},
		{"a charset", valid, 200, []string{"content-type: application/json; charset=utf8"}},
		{"it exists", valid, 200, []string{asJSON, "If-Match: *"}},
		{"it must not exist", valid, 412, []string{asJSON, "If-None-Match: *"}},
		{"another ETag", valid, 412, []string{asJSON, `If-Match: "0123456789abcdef0123456789abcdef"`}},
		{"a weak ETag", valid, 412, []string{asJSON, `If-Match: W/"0123456789abcdef0123456789abcdef"`}},
		{"a malformed ETag", valid, 400, []string{asJSON, "If-Match: x"}},
		{"both conditions", valid, 400, []string{asJSON, "If-Match: *", "If-None-Match: *"}},
		{"no type", valid, 415, nil},
		{"a form", valid, 415, []string{"Content-Type: application/x-www-form-urlencoded"}},
		{"compressed", valid, 415, []string{asJSON, "Content-Encoding: gzip"}},
		{"malformed", `{"id":`, 400, []string{asJSON}},
		{"an unknown member", `{"id":"a","title":"t","x":1}`, 400, []string{asJSON}},
		{"no title", `{"id":"a"}`, 400, []string{asJSON}},
		{"a long id", `{"id":"` + strings.Repeat("x", 257) + `","title":"t"}`, 413, []string{asJSON}},
		{"another origin", valid, 403, []string{asJSON, "Origin: http://example.org"}},
		{"another site", valid, 403, []string{asJSON, "Sec-Fetch-Site: cross-site"}},
		{"a rebound name", valid, 421, []string{asJSON, "Host: example.org"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answersAlike(t, open, tt.status, tt.body, tt.fields)
			if tt.status != http.StatusMisdirectedRequest { // names are not checked where a token is
				answersAlike(t, guarded, tt.status, tt.body, append([]string{"Authorization: Bearer secret"}, tt.fields...))
			}
		})
	}
	t.Run("no token", func(t *testing.T) { answersAlike(t, guarded, 401, valid, []string{asJSON}) })
	t.Run("another token", func(t *testing.T) {
		answersAlike(t, guarded, 401, valid, []string{asJSON, "Authorization: Bearer Secret"})
	})
}

// answersAlike sends a body with a length and in a chunk, and compares the answers.
func answersAlike(t *testing.T, w *instance, status int, body string, fields []string) {
	t.Helper()
	if !strings.Contains(strings.Join(fields, "\n"), "Host: ") {
		fields = append([]string{"Host: writer"}, fields...)
	}
	header := "POST /create HTTP/1.1\r\n" + strings.Join(fields, "\r\n") + "\r\nConnection: close\r\n"
	if status == http.StatusOK { // the post exists from now on
		_ = fullAnswer(t, w, header+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
	}
	direct := fullAnswer(t, w, header+fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
	std := fullAnswer(t, w, header+"Transfer-Encoding: chunked\r\n\r\n"+chunk(body)+"0\r\n\r\n")
	if direct != std {
		t.Errorf("with a length: %s\nin a chunk: %s", direct, std)
	}
	if !strings.HasPrefix(direct, fmt.Sprint(status)) {
		t.Errorf("status %.3s, want %d", direct, status)
	}
}

// fullAnswer returns status, header and body of an answer, with the values removed that differ from write to write.
func fullAnswer(t *testing.T, w *instance, request string) string {
	t.Helper()
	s := w.dial(t)
	defer s.Close()
	s.write(t, request)
	res, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Date", "Etag", "X-Version"} {
		if res.Header.Get(name) != "" {
			res.Header.Set(name, "set")
		}
	}
	var members map[string]any
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	if res.ContentLength != int64(len(body)) {
		t.Errorf("Content-Length %d of %d bytes", res.ContentLength, len(body))
	}
	if res.StatusCode < 300 {
		res.Header.Del("Content-Length")
		for _, name := range []string{"hash", "version", "publish_duration"} {
			if members[name] == nil {
				t.Errorf("the answer has no %s: %s", name, body)
			}
			delete(members, name)
		}
	}
	return fmt.Sprint(res.StatusCode, res.Header, members, res.Close)
}
