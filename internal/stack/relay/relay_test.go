package relay

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echo returns the address of a server that sends every line back.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func dial(t *testing.T, r *Relay) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// try opens a connection and uses it. A connection that is reset at once may fail to open.
func try(r *Relay) error {
	c, err := net.DialTimeout("tcp", r.Addr(), 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.SetDeadline(time.Now().Add(10*time.Second)), echoes(c))
}

func echoes(c net.Conn) error {
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

func TestRelay(t *testing.T) {
	r, err := Listen("127.0.0.1", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	open := dial(t, r)
	if err := echoes(open); err != nil {
		t.Fatal("through the relay:", err)
	}
	r.Cut()
	if err := echoes(open); err == nil {
		t.Error("an open connection survived the cut")
	}
	if try(r) == nil {
		t.Error("a new connection passed the cut link")
	}
	r.Mend()
	again := dial(t, r)
	if err := echoes(again); err != nil {
		t.Error("after the mend:", err)
	}
	// The end of one direction is passed on, and the other one still works.
	if _, err := io.WriteString(again, "last\n"); err != nil {
		t.Fatal(err)
	}
	if err := again.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(again); string(rest) != "last\n" || err != nil {
		t.Errorf("after the end of the client's direction: %q, %v", rest, err)
	}
}

func TestRelayToNowhere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	r, err := Listen("127.0.0.1", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if try(r) == nil {
		t.Error("a connection to a server that is down works")
	}
}

// Close ends connections that are open on both sides.
func TestClose(t *testing.T) {
	r, err := Listen("127.0.0.1", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, r)
	if err := echoes(c); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := echoes(c); err == nil {
		t.Error("the connection survived Close")
	}
}
