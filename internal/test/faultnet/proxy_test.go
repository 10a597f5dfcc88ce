package faultnet

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

const patience = 10 * time.Second

// quiet is the time without bytes that counts as silence. If it is too short, a broken proxy may pass, but a
// correct one never fails.
const quiet = 100 * time.Millisecond

// echo is a server that sends everything back.
type echo struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	got   bytes.Buffer
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{Listener: l}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, c)
			e.mu.Unlock()
			running.Go(func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					e.mu.Lock()
					e.got.Write(buf[:n])
					e.mu.Unlock()
					if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		e.closeAll()
		running.Wait()
	})
	return e
}

func (e *echo) addr() string { return e.Addr().String() }

func (e *echo) received() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got.String()
}

func (e *echo) closeAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		_ = c.Close()
	}
}

func start(t *testing.T) (*echo, *Proxy) {
	t.Helper()
	e := startEcho(t)
	return e, NewProxy(t, e.addr())
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("send %q: %v", text, err)
	}
}

func wantReply(t *testing.T, c net.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

func ask(t *testing.T, c net.Conn, text string) {
	t.Helper()
	say(t, c, text)
	wantReply(t, c, text)
}

func wantSilence(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(quiet))
	b := make([]byte, 1)
	if n, err := c.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes, %v; want silence", n, err)
	}
}

func wantClosed(t *testing.T, c net.Conn, want error) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); want == nil && err != nil || !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestForwardsBothWaysAndCounts(t *testing.T) {
	_, p := start(t)
	a, b := dial(t, p), dial(t, p)
	ask(t, a, "hello")
	ask(t, b, "hi")
	if p.Accepted() != 2 || p.Connections() != 2 {
		t.Errorf("accepted %d, connections %d; want 2 and 2", p.Accepted(), p.Connections())
	}
	// The client may receive the bytes just before they are counted.
	eventually.True(t, "7 bytes each way", func() bool { return p.Bytes(ToServer) == 7 && p.Bytes(ToClient) == 7 })
	if p.swallowed(ToServer)+p.swallowed(ToClient) != 0 {
		t.Error("swallowed bytes without a fault")
	}
	_ = a.Close()
	eventually.True(t, "one connection is left", func() bool { return p.Connections() == 1 })
}

func TestMuchDataArrivesUnchanged(t *testing.T) {
	for name, fault := range map[string]func(*Proxy){
		"no fault": func(*Proxy) {},
		"delay":    func(p *Proxy) { p.Delay(ToServer, 5*time.Millisecond); p.Delay(ToClient, 3*time.Millisecond) },
		"throttle": func(p *Proxy) { p.Throttle(ToServer, 40<<20) },
		"restless": func(p *Proxy) {
			go func() {
				for i := range 100 {
					p.Stall(ToServer, i%2 == 0)
					p.Delay(ToClient, time.Duration(i%3)*time.Millisecond)
					time.Sleep(time.Millisecond)
				}
				p.Heal()
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, p := start(t)
			c := dial(t, p)
			fault(p)
			data := make([]byte, 4<<20)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
			go func() {
				_, _ = c.Write(data)
				_ = c.(*net.TCPConn).CloseWrite() // the reply must still arrive
			}()
			h := sha256.New()
			n, err := io.Copy(h, c)
			if want := sha256.Sum256(data); err != nil || n != int64(len(data)) || !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("got %d bytes, %v; they differ from the %d sent", n, err, len(data))
			}
		})
	}
}

func TestCutAndReset(t *testing.T) {
	_, p := start(t)
	c := dial(t, p)
	ask(t, c, "x")
	p.Cut()
	wantClosed(t, c, nil)

	c = dial(t, p)
	ask(t, c, "x")
	p.Reset()
	wantClosed(t, c, syscall.ECONNRESET)

	ask(t, dial(t, p), "new ones work")
}

func TestEndOfStreamIsForwarded(t *testing.T) {
	e, p := start(t)
	c := dial(t, p)
	ask(t, c, "x")
	e.closeAll()
	wantClosed(t, c, nil)
}

func TestRefuse(t *testing.T) {
	_, p := start(t)
	old := dial(t, p)
	ask(t, old, "x")
	p.Refuse(true)
	wantRefused(t, p)
	ask(t, old, "still there")
	p.Refuse(false)
	ask(t, dial(t, p), "x")
}

// wantRefused checks that a new connection is reset, either in Dial or at the first read.
func wantRefused(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a refused connection: %v, want it closed", err)
	}
}

func TestTargetDownAndSetTarget(t *testing.T) {
	e, p := start(t)
	_ = e.Close()
	wantRefused(t, p)
	other := startEcho(t)
	p.SetTarget(other.addr())
	ask(t, dial(t, p), "x")
	if other.received() != "x" {
		t.Errorf("the new target received %q", other.received())
	}
}

func TestBlackHole(t *testing.T) {
	t.Run("to server", func(t *testing.T) {
		e, p := start(t)
		old, idle := dial(t, p), dial(t, p)
		ask(t, old, "a")
		ask(t, idle, "b")
		p.BlackHole(ToServer, true)
		say(t, old, "lost")
		fresh := dial(t, p)
		say(t, fresh, "too")
		wantSilence(t, old)
		wantSilence(t, fresh)
		if e.received() != "ab" || p.swallowed(ToServer) != 7 {
			t.Errorf("the server received %q, %d bytes swallowed", e.received(), p.swallowed(ToServer))
		}
		p.BlackHole(ToServer, false)
		ask(t, idle, "lost nothing, goes on")
		say(t, old, "has a hole")
		wantSilence(t, old)
	})
	t.Run("to client", func(t *testing.T) {
		e, p := start(t)
		c := dial(t, p)
		p.BlackHole(ToClient, true)
		say(t, c, "done, but never answered")
		wantSilence(t, c)
		if e.received() != "done, but never answered" {
			t.Errorf("the server received %q", e.received())
		}
	})
	t.Run("hides the end of the server", func(t *testing.T) {
		e, p := start(t)
		c := dial(t, p)
		ask(t, c, "x")
		p.BlackHole(ToClient, true)
		e.closeAll()
		wantSilence(t, c)
		// The server's kernel answers these with a reset.
		for range 3 {
			say(t, c, "hello?")
			wantSilence(t, c)
		}
		p.Heal()
		wantClosed(t, c, nil)
	})
	t.Run("hides the end of the client", func(t *testing.T) {
		e, p := start(t)
		c := dial(t, p)
		ask(t, c, "x")
		p.BlackHole(ToServer, true)
		_ = c.Close()
		e.mu.Lock()
		server := e.conns[0]
		e.mu.Unlock()
		// The server's reads must not report the close, and its writes must not fail.
		for range 3 {
			if _, err := server.Write([]byte("are you there?")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(quiet / 10)
		}
		if p.Connections() != 1 {
			t.Error("the server noticed that its client has disconnected")
		}
		p.Heal()
		eventually.True(t, "closed connection", func() bool { return p.Connections() == 0 })
	})
}

func TestHeal(t *testing.T) {
	for name, silently := range map[string]bool{"Heal": false, "HealSilently": true} {
		t.Run(name, func(t *testing.T) {
			_, p := start(t)
			lossy, whole := dial(t, p), dial(t, p)
			ask(t, lossy, "x")
			ask(t, whole, "x")
			p.BlackHole(ToServer, true)
			say(t, lossy, "lost")
			eventually.True(t, "bytes are lost", func() bool { return p.swallowed(ToServer) == 4 })
			hook := p.OnceContains(ToServer, "whole", CutNow)
			p.Only(Contains("x")).Stall(ToClient, true)
			p.Refuse(true)

			if silently {
				p.HealSilently()
				wantSilence(t, lossy)
				say(t, lossy, "still lost")
				wantSilence(t, lossy)
			} else {
				p.Heal()
				wantClosed(t, lossy, nil)
			}
			ask(t, whole, "whole")
			ask(t, dial(t, p), "new")
			select {
			case <-hook.Fired():
				t.Error("a hook fired after Heal")
			default:
			}
		})
	}
}

func TestDelayKeepsOrderAndDoesNotAddUp(t *testing.T) {
	_, p := start(t)
	c := dial(t, p)
	const delay = 200 * time.Millisecond
	p.Delay(ToServer, delay)
	began := time.Now()
	go func() {
		for i := range 20 {
			_, _ = c.Write([]byte{byte('a' + i)})
			time.Sleep(time.Millisecond) // so that they are separate chunks
		}
	}()
	wantReply(t, c, "abcdefghijklmnopqrst")
	// If each byte waited for the previous one, 20 bytes would take 4 s.
	if took := time.Since(began); took < delay || took > 10*delay {
		t.Errorf("20 bytes delayed by %v took %v", delay, took)
	}
	p.Delay(ToServer, time.Hour)
	say(t, c, "x")
	wantSilence(t, c)
	p.Delay(ToServer, 0)
	wantReply(t, c, "x")
}

func TestThrottle(t *testing.T) {
	_, p := start(t)
	c := dial(t, p)
	p.Throttle(ToClient, 1000)
	began := time.Now()
	ask(t, c, strings.Repeat("x", 300))
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("300 bytes at 1000 bytes/s took %v", took)
	}
	p.Throttle(ToClient, 1)
	say(t, c, strings.Repeat("y", 300))
	p.Throttle(ToClient, 0)
	wantReply(t, c, strings.Repeat("y", 300))

	p.Throttle(ToServer, 20)
	say(t, c, strings.Repeat("z", 300))
	wantReply(t, c, "z")
	p.BlackHole(ToServer, true) // in the middle of the transfer
	eventually.True(t, "discarded rest", func() bool { return p.swallowed(ToServer) > 200 })
}

func TestStallIsBackPressureWithoutLoss(t *testing.T) {
	e, p := start(t)
	c := dial(t, p)
	ask(t, c, "x")
	p.Stall(ToServer, true)
	sent := 0
	block := bytes.Repeat([]byte("z"), 64<<10)
	for {
		_ = c.SetWriteDeadline(time.Now().Add(quiet))
		n, err := c.Write(block)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent > 64<<20 {
			t.Fatal("64 MiB written to a stalled connection")
		}
	}
	if got := e.received(); got != "x" {
		t.Errorf("the server received %d bytes during the stall", len(got)-1)
	}
	go func() { _, _ = io.Copy(io.Discard, c) }() // otherwise the echo stalls in the other direction
	p.Stall(ToServer, false)
	eventually.True(t, "the server has every byte", func() bool { return len(e.received()) == 1+sent })
}

func TestSelections(t *testing.T) {
	_, p := start(t)
	sub, data := dial(t, p), dial(t, p)
	ask(t, sub, "HELLO 3\r\n")
	ask(t, data, "HELLO 3\r\n")
	subs := p.Only(Contains("subscribe"))
	rest := p.Only(Not(Contains("subscribe")))
	first := p.Only(func(c Conn) bool { return c.Index == 0 })
	ask(t, sub, "SUBSCRIBE posts\r\n") // selects the connection although the first read did not match
	if subs.Connections() != 1 || rest.Connections() != 1 || first.Connections() != 1 {
		t.Errorf("selected %d, %d and %d connections, want 1 each", subs.Connections(), rest.Connections(), first.Connections())
	}

	subs.BlackHole(ToClient, true)
	ask(t, data, "GET")
	say(t, sub, "x")
	wantSilence(t, sub)
	fresh := dial(t, p) // a new connection is selected from its first SUBSCRIBE on
	ask(t, fresh, "HELLO")
	say(t, fresh, "subscribe")
	wantSilence(t, fresh)

	rest.Cut()
	wantClosed(t, data, nil)
	wantSilence(t, sub)
	subs.Reset()
	wantClosed(t, sub, syscall.ECONNRESET)
}

func TestHooks(t *testing.T) {
	request := "*3 evalsha ..."
	tests := []struct {
		name     string
		action   Action
		executed bool // the server receives the request
		closed   bool // the client's connection is closed
	}{
		{"SwallowReply", SwallowReply, true, false},
		{"CutAtReply", CutAtReply, true, true},
		{"Swallow", Swallow, false, false},
		{"CutNow", CutNow, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, p := start(t)
			victim, other := dial(t, p), dial(t, p)
			ask(t, victim, "a")
			ask(t, other, "b")
			hook := p.OnceContains(ToServer, "EVALSHA", tt.action)
			ask(t, victim, "get") // does not match
			say(t, victim, request)
			select {
			case <-hook.Fired():
			case <-time.After(patience):
				t.Fatal("the hook did not fire")
			}
			if tt.closed {
				wantClosed(t, victim, nil)
			} else {
				wantSilence(t, victim)
				say(t, victim, "more")
				wantSilence(t, victim)
			}
			ask(t, other, request) // the hook fires only once
			if got := strings.Count(e.received(), request) == 2; got != tt.executed {
				t.Errorf("executed %v, want %v (the server received %q)", got, tt.executed, e.received())
			}
		})
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	e := startEcho(t)
	before := runtime.NumGoroutine()
	t.Run("proxy", func(t *testing.T) {
		p := NewProxy(t, e.addr())
		for _, fault := range []func(){
			func() {},
			func() { p.BlackHole(ToServer, true) },
			func() { p.Stall(ToClient, true) },
			func() { p.Delay(ToServer, time.Hour) },
			func() { p.Throttle(ToServer, 1) },
		} {
			fault()
			say(t, dial(t, p), "some bytes")
		}
		eventually.True(t, "all are accepted", func() bool { return p.Connections() == 5 })
	})
	e.closeAll()
	eventually.True(t, "the proxy's goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}
