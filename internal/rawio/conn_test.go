package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pair returns two ends of a connection, the first one as a Conn.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(a).(*Conn)
	t.Cleanup(func() { _ = c.Close(); _ = b.Close() })
	return c, b
}

// Both directions carry more than the buffers of the kernel hold, at the same time and byte for byte.
func TestTransfers(t *testing.T) {
	c, peer := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<19) // 8 MiB
	go func() { _, _ = io.Copy(peer, peer) }()
	failed := make(chan error, 1)
	go func() {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failed <- errors.Join(err, c.CloseWrite())
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("other bytes came back (%v)", err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	if n, err := c.Read(got); n != 0 || err != io.EOF {
		t.Errorf("at the end of the stream: %d bytes, %v", n, err)
	}
}

func TestErrorsAreThoseOfTheNetPackage(t *testing.T) {
	c, peer := pair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("after the deadline: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	_ = peer.(*net.TCPConn).SetLinger(0)
	_ = peer.Close()
	_, err = c.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("after a reset: %v", err)
	}
	blocked, _ := pair(t)
	ended := make(chan error)
	go func() {
		_, err := blocked.Read(make([]byte, 1))
		ended <- err
	}()
	_ = blocked.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A peer that always has more bytes does not keep other goroutines from running, even on one P.
func TestFloodLeavesRoomForOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	c, peer := pair(t)
	var ran atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = peer.Write(make([]byte, 64<<10))
	}()
	<-done
	go ran.Store(true)
	b := make([]byte, 1)
	for i := 0; !ran.Load(); i++ {
		if i > 2*yieldEvery {
			t.Fatalf("no other goroutine ran during %d reads", i)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
}

// The function with which go-redis checks an idle connection finds the end of the stream and unexpected bytes.
func TestSyscallConnFindsUnusableConnections(t *testing.T) {
	check := func(c *Conn) (found string) {
		found = "quiet"
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Read(func(fd uintptr) bool {
			var b [1]byte
			switch n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); {
			case n > 0:
				found = "bytes"
			case n == 0 && err == nil:
				found = "end"
			case err != syscall.EAGAIN:
				found = err.Error()
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	await := func(c *Conn, want string) {
		t.Helper()
		for began := time.Now(); check(c) != want; runtime.Gosched() {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("found %q, want %q", check(c), want)
			}
		}
	}
	c, peer := pair(t)
	await(c, "quiet")
	_, _ = peer.Write([]byte("x"))
	await(c, "bytes")
	_, _ = c.Read(make([]byte, 1))
	await(c, "quiet")
	_ = peer.Close()
	await(c, "end")
}

func TestTransfersDoNotAllocate(t *testing.T) {
	c, peer := pair(t)
	b := make([]byte, 8)
	echo := make([]byte, 8)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = c.Write(b)
		_, _ = io.ReadFull(peer, echo)
		_, _ = peer.Write(echo)
		_, _ = c.Read(b)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// One call does not copy megabytes, however large buffer and queue are.
func TestReadIsBounded(t *testing.T) {
	c, peer := pair(t)
	go func() { _, _ = peer.Write(make([]byte, 8*maxCall)) }()
	b := make([]byte, 8*maxCall)
	for got := 0; got < len(b); {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > maxCall {
			t.Fatalf("one read of %d bytes", n)
		}
		got += n
		if got < 4*maxCall { // let the rest arrive, so that a read could return more
			time.Sleep(time.Millisecond)
		}
	}
}
