package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// send sends n reads from eight clients. The test fails if the answer to any of them is not 200.
func send(t *testing.T, g *gateway, n int) {
	t.Helper()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				res, body, err := fetch(http.MethodGet, g.url("/post?id=1"), nil, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					t.Errorf("read failed: %v %v %s", err, res, body)
					return
				}
			}
		})
	}
	wg.Wait()
}

// reads returns the number of reads that each reader received since the last call.
func reads(readers []*reader) []int64 {
	counts := make([]int64, len(readers))
	for i, r := range readers {
		counts[i] = r.reads.Swap(0)
	}
	return counts
}

func TestRoundRobinOverReadyReaders(t *testing.T) {
	t.Parallel()
	readers, addrs := newReaders(t, 3)
	g := start(t, Config{Readers: addrs})
	steps := []struct {
		name     string
		notReady []bool
		ready    int
		want     []int64
	}{
		{"all ready", []bool{false, false, false}, 3, []int64{100, 100, 100}},
		{"one is not ready", []bool{false, true, false}, 2, []int64{150, 0, 150}},
		{"only one is ready", []bool{true, true, false}, 1, []int64{0, 0, 300}},
		{"none is ready: all are used", []bool{true, true, true}, 0, []int64{100, 100, 100}},
		{"all are ready again", []bool{false, false, false}, 3, []int64{100, 100, 100}},
	}
	for _, step := range steps {
		for i, r := range readers {
			r.notReady.Store(step.notReady[i])
		}
		g.awaitReady(t, step.ready)
		send(t, g, 300)
		for i, got := range reads(readers) {
			if got != step.want[i] {
				t.Errorf("%s: reader %d got %d of 300 reads, want %d", step.name, i, got, step.want[i])
			}
		}
	}
}

func TestKilledReaderFailsNoRead(t *testing.T) {
	t.Parallel()
	var readers []*process
	var addrs []string
	for range 3 {
		addr := freeAddr(t)
		addrs = append(addrs, addr)
		readers = append(readers, startProcess(t, addr))
	}
	g := start(t, Config{Readers: addrs})
	g.awaitReady(t, 3)

	var done, failed atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, body, err := fetch(http.MethodGet, g.url("/post?id=42"), nil, nil)
				if err != nil || res.StatusCode != http.StatusOK || string(body) != "post 42" {
					failed.Add(1)
					t.Errorf("read failed: %v %v %q", err, res, body)
					return
				}
				done.Add(1)
			}
		})
	}
	more := func(n int64) {
		from := done.Load()
		eventually.True(t, "reads go on", func() bool { return failed.Load() > 0 || done.Load() >= from+n })
	}
	for round := range 4 {
		i := round % 3
		more(200)
		readers[i].kill()
		g.awaitReady(t, 2)
		more(200)
		readers[i] = startProcess(t, addrs[i])
		g.awaitReady(t, 3)
	}
	close(stop)
	clients.Wait()
}

// reset closes a connection with a TCP reset.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func TestFailedReadIsRetriedOnAnotherReader(t *testing.T) {
	t.Parallel()
	silence := func(conn net.Conn) {
		conn.Read(make([]byte, 1)) // until the gateway gives up
	}
	faults := []struct {
		name   string
		deal   func(net.Conn)
		refuse bool
		limit  int64 // tries until the reader is ejected; 0 if it never is
		code   int   // status of the answer if every reader has the fault
	}{
		{name: "refused", refuse: true, limit: refusedLimit, code: http.StatusBadGateway},
		{name: "reset", deal: reset, limit: refusedLimit, code: http.StatusBadGateway},
		{name: "closed", deal: func(conn net.Conn) { conn.Close() }, limit: refusedLimit, code: http.StatusBadGateway},
		{name: "header cut", deal: func(conn net.Conn) {
			conn.Write([]byte("HTTP/1.1 200 OK\r\nETag: \"a"))
		}, limit: refusedLimit, code: http.StatusBadGateway},
		{name: "silent", deal: silence, code: http.StatusGatewayTimeout},
	}
	for _, fault := range faults {
		// Once a reader is ready its checks are rare, so that the passive checks eject it.
		config := Config{CheckInterval: time.Minute, Timeout: 200 * time.Millisecond}
		broken := func(t *testing.T, g func(addrs ...string) *gateway, n int, others ...string) ([]*faulty, *gateway) {
			var bad []*faulty
			addrs := others
			for range n {
				f := newFaulty(t, fault.deal)
				bad = append(bad, f)
				addrs = append(addrs, f.addr)
			}
			gw := g(addrs...)
			gw.awaitReady(t, len(addrs))
			if fault.refuse {
				for _, f := range bad {
					f.ln.Close()
				}
			}
			return bad, gw
		}
		startWith := func(t *testing.T) func(addrs ...string) *gateway {
			return func(addrs ...string) *gateway {
				cfg := config
				cfg.Readers = addrs
				return start(t, cfg)
			}
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			t.Run(fault.name+"/"+method, func(t *testing.T) {
				t.Parallel()
				good := newReader(t, nil)
				bad, g := broken(t, startWith(t), 1, good.addr)
				for i := range 10 {
					if res, body := do(t, method, g.url("/post?id=1"), nil); res.StatusCode != http.StatusOK {
						t.Fatalf("read %d: %s %s", i, res.Status, body)
					}
				}
				if got := good.reads.Load(); got != 10 {
					t.Errorf("the good reader got %d reads, want 10", got)
				}
				if fault.limit == 0 {
					if r := g.readiness(t); r.Ready != 2 {
						t.Errorf("readiness %+v, want both ready: timeouts must not eject a reader", r)
					}
					return
				}
				if got := bad[0].tries.Load(); !fault.refuse && got != fault.limit {
					t.Errorf("the faulty reader was tried %d times, want %d, then ejected", got, fault.limit)
				}
				if r := g.readiness(t); r.Ready != 1 || r.code != http.StatusOK || len(r.Reasons) != 1 {
					t.Errorf("readiness %+v, want one of two readers ready, and a reason for the other", r)
				}
			})
		}
		t.Run(fault.name+"/everywhere", func(t *testing.T) {
			t.Parallel()
			bad, g := broken(t, startWith(t), 2+retries)
			res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil)
			wantProblem(t, res, body, fault.code)
			var tries int64
			for _, f := range bad {
				tries += f.tries.Load()
				if f.tries.Load() > 1 {
					t.Error("a reader was tried twice")
				}
			}
			if !fault.refuse && tries != 1+retries {
				t.Errorf("%d tries, want %d", tries, 1+retries)
			}
		})
	}
}

// TestAllButOneReaderFrozen freezes all readers but one at the same instant, before any check detects it.
func TestAllButOneReaderFrozen(t *testing.T) {
	t.Parallel()
	addrs := []string{newReader(t, nil).addr}
	for range retries {
		frozen := newFaulty(t, func(conn net.Conn) { conn.Read(make([]byte, 1)) })
		addrs = append(addrs, frozen.addr)
	}
	g := start(t, Config{Readers: addrs, CheckInterval: time.Minute, Timeout: time.Second})
	g.awaitReady(t, len(addrs))
	send(t, g, 9)
}

// TestHalfClosedClient sends a request and then FIN, as nc does, and reads the answer.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	r := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done(): // the gateway has closed the connection
		case <-time.After(50 * time.Millisecond): // duration of this read
		}
		io.WriteString(w, "whole")
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || !strings.HasSuffix(string(answer), "whole") {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func TestReaderRecoversAfterTwoChecks(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	bad := newReader(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				reset(conn)
			}
		}
	})
	good := newReader(t, nil)
	g := start(t, Config{Readers: []string{bad.addr, good.addr}})
	g.awaitReady(t, 2)
	eventually.True(t, "the reader is ejected", func() bool {
		send(t, g, 1)
		return strings.Count(g.logs.String(), "reader is not ready") > 0
	})
	broken.Store(false)
	g.awaitReady(t, 2)
	bad.reads.Store(0)
	send(t, g, 10)
	if got := bad.reads.Load(); got != 5 {
		t.Errorf("the recovered reader got %d of 10 reads, want 5", got)
	}
}

func TestErrorAnswersAreNeitherRetriedNorEject(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusNotFound, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()
			failing := newReader(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "7")
				http.Error(w, "my own error", code)
			})
			good := newReader(t, nil)
			g := start(t, Config{Readers: []string{failing.addr, good.addr}})
			g.awaitReady(t, 2)
			passed := 0
			for range 40 {
				res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil)
				if res.StatusCode == code {
					passed++
					if string(body) != "my own error\n" || res.Header.Get("Retry-After") != "7" {
						t.Fatalf("answer changed: %q %v", body, res.Header)
					}
				}
			}
			if f, o := failing.reads.Load(), good.reads.Load(); passed != 20 || f != 20 || o != 20 {
				t.Errorf("%d of 40 answers were %d; readers got %d and %d reads, want 20 each", passed, code, f, o)
			}
			if n := strings.Count(g.logs.String(), "reader is not ready"); n != 0 {
				t.Error("a reader was ejected because of its answers")
			}
		})
	}
}

func TestDisconnectedClientsEjectNoReader(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 16), make(chan struct{})
	slow := newReader(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	g := start(t, Config{Readers: []string{slow.addr}, Timeout: patience})
	g.awaitReady(t, 1)
	for range 5 {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\n"))
		<-arrived
		conn.Close()
	}
	close(release)
	gone := "code=200 consumer= matched_host= matched_uri=/post node=" + slow.addr + " route=post service="
	eventually.True(t, "the requests are counted", func() bool {
		return samples(g.families(t)["apisix_http_status"])[gone] == 5
	})
	if n := strings.Count(g.logs.String(), "reader is not ready"); n != 0 {
		t.Error("a reader was ejected because clients disconnected")
	}
}
