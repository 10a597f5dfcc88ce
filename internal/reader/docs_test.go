package reader

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

// TestDocsVerifyAHash runs the commands of docs/http.md that verify the hash of a post. It also checks that
// the hash still matches after a round trip through jq, which stores numbers as floats.
func TestDocsVerifyAHash(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "jq", "md5sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	page, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, lines, found := strings.Cut(string(page), "To verify it:\n\n```sh\n")
	lines, _, closed := strings.Cut(lines, "```")
	if !found || !closed || strings.Count(lines, "\n") != 3 {
		t.Fatalf("docs/http.md has no three commands that verify a hash: %q", lines)
	}
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	r := startReady(t, b.Addr())
	run := func(script string) []string {
		t.Helper()
		script = strings.ReplaceAll(script, "http://localhost:9080", r.URL)
		out, err := exec.CommandContext(t.Context(), "sh", "-euc", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return strings.Fields(string(out))
	}
	for _, text := range []post.Post{
		{ID: "hello", Title: "Hello", Content: "First post", Author: "me"},
		{ID: "hello", Title: `,"hash":"x"}`, Content: "%s $(x) ` \\ \n\t 'é' * [a]", Author: `"`},
	} {
		w := publish(t, p, text)
		r.do(t, "GET", "/post?id=hello", "X-Min-Version", w.token.String()) // waits for the write
		if got := run(lines); len(got) != 3 || got[0] != got[2] || `"`+got[2]+`"` != w.etag {
			t.Errorf("%+v: %s prints %q, want the hash %s twice", text, lines, got, w.etag)
		}
		if got := run(`curl -s 'http://localhost:9080/post?id=hello' | jq -cj 'del(.hash)' | md5sum`); `"`+got[0]+`"` != w.etag {
			t.Errorf("%+v: the hash of jq's output is %s, want %s", text, got[0], w.etag)
		}
	}
}

// TestPostOfAnOlderWriter checks that a post with a timestamp in nanoseconds is served unchanged.
func TestPostOfAnOlderWriter(t *testing.T) {
	body, err := os.ReadFile("../post/testdata/nanoseconds.json")
	if err != nil {
		t.Fatal(err)
	}
	b := redistest.StartEmbedded(t)
	if _, err := newPublisher(t, b.Addr()).Write(t.Context(), protocol.Write{Op: protocol.Set, Key: "post-1", Value: body}); err != nil {
		t.Fatal(err)
	}
	r := startReady(t, b.Addr())
	for _, path := range []string{"/post", "/post-redis", "/post-marshal"} {
		res := r.do(t, "GET", target(path, "post-1"))
		if string(res.body) != string(body) || res.header.Get("ETag") != `"f9bc5b4b6c153c7958ff5eeb2140b68f"` {
			t.Errorf("%s: %d %s, want %s", path, res.status, res.body, body)
		}
	}
}
