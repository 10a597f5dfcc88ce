package gateway

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
)

// replace replaces a nodes file as its writers do, with a rename.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestReadNodes(t *testing.T) {
	many := make([]string, maxNodes+1)
	for i := range many {
		many[i] = "127.0.0.1:" + strconv.Itoa(1000+i)
	}
	tests := []struct {
		name, text string
		want       []string
		err        string
	}{
		{"one", "127.0.0.1:8082", []string{"127.0.0.1:8082"}, ""},
		{"lines, space, comments", "# readers\n\n 127.0.0.1:1 \r\n[::1]:2\nreader:3\n", []string{"127.0.0.1:1", "[::1]:2", "reader:3"}, ""},
		{"as many as allowed", strings.Join(many[1:], "\n"), many[1:], ""},
		{"empty", "", nil, "lists no reader"},
		{"only comments", "# none\n\n", nil, "lists no reader"},
		{"no port", "127.0.0.1\n", nil, "write host:port"},
		{"no host", ":80\n", nil, "write host:port"},
		{"port 0", "127.0.0.1:0\n", nil, "write host:port"},
		{"port too high", "127.0.0.1:65536\n", nil, "write host:port"},
		{"port by name", "127.0.0.1:http\n", nil, "write host:port"},
		{"a URL", "http://127.0.0.1:80\n", nil, "write host:port"},
		{"one bad line among good ones", "127.0.0.1:1\n127.0.0.1:\n", nil, "write host:port"},
		{"twice", "127.0.0.1:1\n127.0.0.1:1\n", nil, "listed twice"},
		{"too many", strings.Join(many, "\n"), nil, "the maximum is 256"},
		{"too large", strings.Repeat("#", maxNodesFile+1), nil, "larger than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nodes")
			replace(t, path, test.text)
			got, err := readNodes(path)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestBrokenNodesFileIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	logs := new(logtest.Buffer)
	var sets int
	f := &nodesFile{path: path, log: slog.New(slog.NewTextHandler(logs, nil)), set: func([]string) { sets++ }}
	for range 3 {
		f.reload()
	}
	if n := strings.Count(logs.String(), "nodes file is invalid"); n != 1 || sets != 0 {
		t.Errorf("a missing file was logged %d times and applied %d times, want 1 and 0", n, sets)
	}
	replace(t, path, "127.0.0.1:1")
	for range 3 {
		f.reload()
	}
	if n := strings.Count(logs.String(), "valid again"); n != 1 || sets != 1 {
		t.Errorf("a valid file was logged %d times and applied %d times, want 1 and 1", n, sets)
	}
}

func TestNodesFileIsFollowed(t *testing.T) {
	t.Parallel()
	readers, addrs := newReaders(t, 3)
	path := filepath.Join(t.TempDir(), "nodes")
	g := start(t, Config{Readers: addrs[:1], NodesFile: path})
	g.awaitReady(t, 1)
	replace(t, path, addrs[1]+"\n"+addrs[2]+"\n")
	eventually.True(t, "the list of the file is used", func() bool {
		r := g.readiness(t)
		return r.Readers == 2 && r.Ready == 2
	})
	send(t, g, 20)
	if got := reads(readers); !slices.Equal(got, []int64{0, 10, 10}) {
		t.Errorf("readers got %v of 20 reads, want 0 10 10", got)
	}

	for i, broken := range []string{"", "nonsense\n", addrs[0] + "\n127.0.0.1\n"} {
		replace(t, path, broken)
		eventually.True(t, "the broken file is logged", func() bool { return strings.Count(g.logs.String(), "nodes file is invalid") == 2+i })
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the missing file is logged", func() bool { return strings.Count(g.logs.String(), "nodes file is invalid") == 5 })
	send(t, g, 20)
	if got := reads(readers); !slices.Equal(got, []int64{0, 10, 10}) {
		t.Errorf("with an invalid file, readers got %v of 20 reads, want 0 10 10", got)
	}

	replace(t, path, strings.Join(addrs, "\n"))
	eventually.True(t, "the good file is used", func() bool {
		r := g.readiness(t)
		return r.Readers == 3 && r.Ready == 3
	})
	if n := strings.Count(g.logs.String(), "nodes file is valid again"); n != 2 {
		t.Errorf("the valid file was logged %d times, want 2", n)
	}
	send(t, g, 30)
	if got := reads(readers); !slices.Equal(got, []int64{10, 10, 10}) {
		t.Errorf("readers got %v of 30 reads, want 10 10 10", got)
	}
}

func TestScalingFailsNoRead(t *testing.T) {
	t.Parallel()
	_, addrs := newReaders(t, 5)
	path := filepath.Join(t.TempDir(), "nodes")
	replace(t, path, strings.Join(addrs[:3], "\n"))
	g := start(t, Config{NodesFile: path})
	for _, n := range []int{3, 5, 1, 4, 2} {
		replace(t, path, strings.Join(addrs[:n], "\n"))
		for g.readiness(t).Readers != n {
			send(t, g, 20)
		}
		send(t, g, 20)
		g.awaitReady(t, n)
	}
}

func TestNoReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nodes")
	g := start(t, Config{NodesFile: path})
	res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil)
	wantProblem(t, res, body, http.StatusServiceUnavailable)
	if res.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if r := g.readiness(t); r.code != http.StatusServiceUnavailable || len(r.Reasons) == 0 {
		t.Errorf("readiness %+v, want 503 with a reason", r)
	}
	r := newReader(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") })
	replace(t, path, r.addr)
	g.awaitReady(t, 1)
	if res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil); res.StatusCode != http.StatusOK || string(body) != "here" {
		t.Errorf("%s %s, want 200", res.Status, body)
	}
}
