package peer

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	line := "42 (nginx: w (x) y) S 7 42 42 0 -1 4194560 100 0 0 0 150 250 0 0 20 0 1 0 1000 1000000 500\n"
	parent, cpu, err := parseStat(line)
	if err != nil || parent != 7 || cpu != 4*time.Second {
		t.Errorf("got parent %d, %v (%v), want 7 and 4 s", parent, cpu, err)
	}
	for _, bad := range []string{"", "42 (x) S 7", "42 (x) S 7 1 1 1 1 1 1 1 1 1 a 2 3"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestChildrenCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	if _, ok := childrenCPU(-1); ok {
		t.Error("process -1 has children")
	}
	if _, ok := childrenCPU(os.Getppid()); !ok {
		t.Error("our parent has no children")
	}
}

func TestNginx(t *testing.T) {
	body := `{"id":"x","content":"{braces}; and # signs","hash":"1"}`
	n, err := StartNginx(t.Context(), body, `"etag"`, "1-2")
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + n.Addr + "/post?id=whatever")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || string(got) != body || res.Header.Get("ETag") != `"etag"` || res.Header.Get("X-Version") != "1-2" {
		t.Errorf("got %s %v (%v)", got, res.Header, err)
	}
	if _, known := n.CPU(); !known && runtime.GOOS == "linux" {
		t.Error("the CPU of the workers is not known")
	}
	n.Stop()
	if conn, err := net.Dial("tcp", n.Addr); err == nil {
		_ = conn.Close()
		t.Error("nginx still listens after Stop")
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is still there: %v", err)
	}
}

func TestQuotable(t *testing.T) {
	for _, bad := range []string{`it's`, `5 $ each`, `a\nb`} {
		if Quotable(bad) {
			t.Errorf("%q cannot stand in the configuration", bad)
		}
		if _, err := StartNginx(t.Context(), bad, "", ""); err == nil {
			t.Errorf("nginx was started with %q", bad)
		}
	}
	if !Quotable(`{"a":"b, c; {d} #e"}`) {
		t.Error("a JSON object can stand there")
	}
}
