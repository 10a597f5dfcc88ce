package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/proctest"
)

// limitedGateway is the environment variable that turns this test binary into a gateway for the readers that it lists.
const limitedGateway = "GATEWAY_TEST_LIMITED"

// TestLimitOfOpenFiles opens more connections than the gateway may have files. It must refuse the surplus, serve the others,
// answer probes and keep all readers in rotation.
func TestLimitOfOpenFiles(t *testing.T) {
	if addrs := os.Getenv(limitedGateway); addrs != "" {
		g := start(t, Config{Readers: strings.Split(addrs, ","), Timeout: patience})
		fmt.Println("listening", g.addr, g.metrics)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
		for _, bad := range []string{"reader is not ready\"", "accept failed"} {
			if logs := g.logs.String(); strings.Contains(logs, bad) {
				t.Errorf("the log has %q:\n%s", bad, logs)
			}
		}
		return
	}
	t.Parallel()
	slow := make(chan struct{})
	release := sync.OnceFunc(func() { close(slow) })
	readers, addrs := make([]*reader, 3), make([]string, 3)
	for i := range readers {
		readers[i] = newReader(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("id") == "slow" {
				<-slow
			}
			io.WriteString(w, "here")
		})
		addrs[i] = readers[i].addr
	}
	const files = 1200
	g := new(gateway)
	proctest.StartSelf(t, fmt.Sprint("ulimit -n ", files), []string{limitedGateway + "=" + strings.Join(addrs, ",")}, &g.addr, &g.metrics)
	g.awaitReady(t, 3)
	defer release() // the readers close before the gateway

	served := 0
	// Each accepted client occupies a connection to a reader as well.
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for _, addr := range []string{g.addr, g.metrics} {
		for range 2700 / 2 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			if addr == g.addr {
				io.WriteString(c, "GET /post?id=slow HTTP/1.1\r\nHost: x\r\n\r\n")
			} else {
				io.WriteString(c, "GET /ready HTTP/1.1\r\nHo")
			}
		}
	}
	if r := g.readiness(t); r.code != http.StatusOK || r.Ready != 3 {
		t.Errorf("with all places taken: %+v, want three ready readers", r)
	}
	res, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Get(g.url("/post?id=1"))
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one client above the limit: %s %s, want 503", res.Status, body)
	}
	release()
	for _, c := range conns {
		if c.RemoteAddr().String() == g.addr {
			_ = c.SetDeadline(time.Now().Add(patience))
			if answer, _ := io.ReadAll(io.LimitReader(c, 12)); len(answer) == 12 && string(answer) == "HTTP/1.1 200" {
				served++
			}
		}
		c.Close()
	}
	// 512 files are reserved; each client gets three of the rest.
	if want := (files - 512) / 3; served < want-1 { // the Go runtime lowers the limit by one
		t.Errorf("%d clients were served, want %d", served, want)
	}
	eventually.True(t, "there are places again", func() bool {
		res, _, err := fetch(http.MethodGet, g.url("/post?id=1"), nil, nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
	send(t, g, 30)
}

// TestOwnShortage: errors for lack of the own resources must not eject a reader.
func TestOwnShortage(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", errno)}
		p := newTestNodes("a:1")
		n := p.list[0]
		p.checked(n, nil)
		for range 10 {
			p.missed(n, err)
			p.checked(n, fmt.Errorf("GET /ready: %w", err))
		}
		if len(p.view.Load().ready) != 1 {
			t.Errorf("%v ejected a reader", errno)
		}
		p.checked(n, errors.New("503"))
		p.checked(n, err)
		p.checked(n, errors.New("503"))
		if len(p.view.Load().ready) != 0 {
			t.Errorf("%v between two failed checks kept the reader in rotation", errno)
		}
		b := &balancer{nodes: newTestNodes("a:1", "b:1"), try: func(*node, *exchange) error { return err }}
		answer := (&proxy{log: b.nodes.log}).failure(b.send(&exchange{repeatable: true, start: time.Now()}), nil)
		if answer.Status != http.StatusServiceUnavailable {
			t.Errorf("%v is answered with %d, want 503", errno, answer.Status)
		}
	}
}
