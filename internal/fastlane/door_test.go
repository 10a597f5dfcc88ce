package fastlane

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/proctest"
)

func TestPlaces(t *testing.T) {
	for _, tt := range []struct{ files, perConn, conns, atDoor int }{
		{maxFiles, 1, 20_000, 256}, {20_512, 1, 20_000, 256}, {20_000, 1, 19_488, 256}, {1024, 1, 512, 256}, {256, 1, 128, 64},
		{maxFiles, 3, 20_000, 256}, {20_000, 3, 6496, 256}, {1024, 3, 170, 256}, {256, 3, 42, 64},
	} {
		if conns, atDoor := places(tt.files, tt.perConn); conns != tt.conns || atDoor != tt.atDoor {
			t.Errorf("%d files, %d per connection: %d connections, %d at the door; want %d, %d", tt.files, tt.perConn, conns, atDoor, tt.conns, tt.atDoor)
		}
	}
}

func withProbes(most int) func(*Config) {
	return func(c *Config) { c.MaxConns, c.Probes = most, []string{"/ready"} }
}

// fill occupies all places with connections in the middle of a header.
func (f *fixture) fill(t *testing.T) {
	t.Helper()
	for range f.maxConns {
		send(t, dial(t, f), "GET /post")
	}
	eventually.True(t, "all places taken", func() bool { return f.connCount() == f.maxConns })
}

const probe = "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"

func TestProbesAreServedWhenAllPlacesAreTaken(t *testing.T) {
	f := start(t, withProbes(3))
	f.fill(t)
	for _, tt := range []struct {
		request string
		status  int
	}{
		{probe, 200},
		{"GET /ready HTTP/1.0\r\n\r\n", 200},
		{"GET /ready HTTP/1.1\r\nConnection: keep-alive\r\nHost: a\r\n\r\n" + get("1"), 200},
		{get("1"), 503},
		{get("1") + probe, 503},
		{"GET /readyness HTTP/1.1\r\nHost: a\r\n\r\n", 503},
		{"POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 503},
		{"GET /ready HTTP/1.1\r\nX: " + strings.Repeat("x", 2*readBuffer) + "\r\nHost: a\r\n\r\n", 503},
		{"", 503}, // a silent client is answered too
		{probe[:20], 503},
	} {
		c := dial(t, f)
		send(t, c, tt.request)
		r := bufio.NewReader(c)
		if res, _ := answer(t, r); res.StatusCode != tt.status || !res.Close {
			t.Errorf("%.30q: %s, closing: %v; want %d", tt.request, res.Status, res.Close, tt.status)
		}
		closed(t, r)
	}
	eventually.True(t, "empty door", func() bool {
		f.door.mu.Lock()
		defer f.door.mu.Unlock()
		return f.door.conns.Len() == 0
	})
}

// Refused connections are counted and logged; probes are not.
func TestRefusedConnectionsAreReported(t *testing.T) {
	logs := new(logtest.Buffer)
	f := start(t, withProbes(3), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(logs, nil)) })
	reg := prometheus.NewRegistry()
	f.Register(reg)
	check := func(connections, refused int) {
		t.Helper()
		want := fmt.Sprintf("http_connections %d\nhttp_connections_max 3\nhttp_connections_refused_total %d\n", connections, refused)
		if got := samples(t, reg); got != want {
			t.Errorf("the metrics are\n%s, want\n%s", got, want)
		}
	}
	check(0, 0)
	f.fill(t)
	for _, request := range []string{probe, get("1"), probe, get("2"), get("3")} {
		c := dial(t, f)
		send(t, c, request)
		answer(t, bufio.NewReader(c))
	}
	check(3, 3)
	if got := strings.Count(logs.String(), "level=WARN"); got != 1 || !strings.Contains(logs.String(), "max_connections=3") {
		t.Errorf("the log has %d warnings, want one with the limit:\n%s", got, logs)
	}
}

// samples returns the metrics without labels in the order of their names, one per line.
func samples(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, family := range families {
		m := family.Metric[0]
		fmt.Fprintln(&b, family.GetName(), m.GetGauge().GetValue()+m.GetCounter().GetValue())
	}
	return b.String()
}

// Clients that connect and send nothing do not block probes: the oldest of these connections is closed.
func TestDoorIsBounded(t *testing.T) {
	f := start(t, withProbes(1))
	f.door.most = 4
	f.fill(t)
	for range 50 {
		dial(t, f)
	}
	c := dial(t, f)
	_ = c.SetDeadline(time.Now().Add(doorTimeout / 2)) // before any connection at the door times out
	send(t, c, probe)
	expectLast(t, bufio.NewReader(c), "std", "post ")
}

// If few places are free, connections that have never sent a byte are closed first.
func TestCrowdedServerClosesSilentConnections(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t, withProbes(8))
		used, other := dial(t, f), dial(t, f)
		usedReader, otherReader := bufio.NewReader(used), bufio.NewReader(other)
		send(t, used, get("1"))
		expect(t, usedReader, fast, "post 1")
		send(t, other, postRequest)
		expect(t, otherReader, "std", "post 3")
		began := time.Now()
		for range 6 {
			dial(t, f)
		}
		eventually.True(t, "end of the silent connections", func() bool { return f.connCount() == 2 })
		if took := time.Since(began); took < crowdedFresh {
			t.Errorf("silent connections were closed after %v, want at least %v", took, crowdedFresh)
		}
		send(t, used, get("2"))
		expect(t, usedReader, fast, "post 2")
		send(t, other, postRequest)
		expect(t, otherReader, "std", "post 3")

		silent := dial(t, f) // enough places are free, so it is not closed
		f.waitTicks(t, uint32(2*crowdedFresh/sweepPause))
		send(t, silent, get("1"))
		expect(t, bufio.NewReader(silent), fast, "post 1")
	})
}

// childFiles is the environment variable that makes this test binary a server.
const childFiles = "FASTLANE_TEST_CHILD"

// A server whose process may open few files refuses excess connections and still answers probes. It raises the
// soft limit to the hard limit.
func TestLimitOfOpenFiles(t *testing.T) {
	if os.Getenv(childFiles) != "" {
		f := start(t, withProbes(0), func(c *Config) { c.Std.ReadHeaderTimeout = 5 * time.Second })
		fmt.Println("listening", f.addr, fileLimit())
		_, _ = io.Copy(io.Discard, os.Stdin) // blocks until the parent closes it
		return
	}
	const hard = 300
	var addr string
	var limit int
	proctest.StartSelf(t, fmt.Sprintf("ulimit -S -n 64 && ulimit -H -n %d", hard), []string{childFiles + "=1"}, &addr, &limit)
	if limit < hard-1 { // the Go runtime lowers the limit by one
		t.Errorf("the limit is %d files, want the hard limit, %d", limit, hard)
	}
	roundTrip := func(request string) (int, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, request); err != nil {
			return 0, err
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, nil
	}
	for range 2 * hard {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, "GET /post") // not a silent connection
	}
	if status, err := roundTrip(get("1")); status != 503 {
		t.Errorf("a read: %d, %v, want 503", status, err)
	}
	if status, err := roundTrip(probe); status != 200 {
		t.Errorf("a probe: %d, %v, want 200", status, err)
	}
	eventually.Nil(t, func() error { // once the incomplete headers have timed out
		if status, err := roundTrip(get("1")); status != 200 {
			return errors.Join(fmt.Errorf("a read: %d", status), err)
		}
		return nil
	})
}
