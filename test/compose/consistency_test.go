//go:build compose

package compose

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// checkConsistency reads through the gateway what was just written: with the cookie of the write, and with
// X-Min-Version: latest. Both must reach the readers, and no answer may take a reader out of rotation.
func checkConsistency(t *testing.T) {
	t.Setenv("CONSISTENCY_COOKIE", "true")
	recreate := []string{"docker", "compose", "--progress", "quiet", "up", "--detach", "--wait", "--no-deps", "writer"}
	run(t, recreate...)
	t.Cleanup(func() {
		t.Setenv("CONSISTENCY_COOKIE", "false")
		combined(recreate...)
	})
	cookie := ""
	for n := range 100 {
		content := fmt.Sprintf("write %d", n)
		a, err := send(http.MethodPost, writer+"/create", http.Header{"Content-Type": {"application/json"}}, `{"id":"check","title":"t","content":"`+content+`"}`)
		if err != nil {
			t.Fatal(err)
		}
		var whole string
		cookie, whole, _ = strings.Cut(a.header.Get("Set-Cookie"), ";")
		if a.status >= 400 || !strings.HasPrefix(cookie, "posts_version="+a.header.Get("X-Version")) || !strings.Contains(whole, "Path=/") {
			t.Fatalf("the writer answers %d, Set-Cookie: %s", a.status, a.header.Get("Set-Cookie"))
		}
		for _, header := range []http.Header{{"Cookie": {"theme=dark; " + cookie}}, {"X-Min-Version": {"latest"}}} {
			a, err := send(http.MethodGet, gateway+"/post?id=check", header, "")
			if err != nil || a.status != http.StatusOK || !strings.Contains(a.body, content) {
				t.Fatalf("after write %d a read with %v gets %d, %v: %.300s", n, header, a.status, err, a.body)
			}
		}
	}
	version := regexp.MustCompile(`-(\d+)\.`).FindStringSubmatchIndex(cookie)
	if version == nil {
		t.Fatalf("the cookie %q has no version", cookie)
	}
	newest, _ := strconv.Atoi(cookie[version[2]:version[3]])
	future := cookie[:version[2]] + strconv.Itoa(newest+1_000_000) + cookie[version[3]:]

	name := containerName("redis", 1)
	run(t, "docker", "pause", name)
	t.Cleanup(func() { combined("docker", "unpause", name) })
	// Without the cookie and the header, a reader answers from memory.
	mustGet(t, gateway+"/post?id=check")
	expectUnavailable(t, "Cookie", http.Header{"Cookie": {future}})
	expectUnavailable(t, "X-Min-Version", http.Header{"X-Min-Version": {"latest"}})
	now(t, inRotation(3))
	run(t, "docker", "unpause", name)
	eventually(t, 20*time.Second, converged)
}

// expectUnavailable fails the test unless a reader refuses a read through the gateway because of a header.
func expectUnavailable(t *testing.T, field string, header http.Header) {
	t.Helper()
	a, err := send(http.MethodGet, gateway+"/post?id=check", header, "")
	if err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, `"field":"`+field+`"`) {
		t.Errorf("a read with %v gets %d, %v: %.300s", header, a.status, err, a.body)
	}
}
