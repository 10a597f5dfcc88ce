package fanout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
)

// A measurement is valid only when every subscriber has received everything.
func TestDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		received [2]int64 // bytes of two subscribers
		timed    int      // writes that the timed subscriber received
		fails    bool
	}{
		"all":                      {[2]int64{500, 500}, 2, false},
		"a subscriber lacks bytes": {[2]int64{500, 400}, 2, true},
		"a write is missing":       {[2]int64{500, 500}, 1, true},
	} {
		s := &subscribers{bytes: make([]atomic.Int64, 2)}
		for i, n := range c.received {
			s.bytes[i].Store(n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := (&audience{[]*timed{{times: make([]time.Duration, c.timed)}}, s}).delivered(ctx, 2); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// serve accepts one subscriber, confirms its subscription, sends it each chunk by itself, and closes the connection after end or
// the test.
func serve(t *testing.T, chunks ...string) (addr string, end func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	closing := make(chan struct{})
	end = sync.OnceFunc(func() { close(closing) })
	t.Cleanup(end)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for range 5 { // lines of the command
			_, _ = in.ReadString('\n')
		}
		fmt.Fprintf(conn, "*3\r\n$9\r\nsubscribe\r\n%s:1\r\n", bulk(protocol.DefaultChannel))
		for _, chunk := range chunks {
			_, _ = io.WriteString(conn, chunk)
		}
		<-closing
	}()
	return ln.Addr().String(), end
}

// A connection that the server closes fails the measurement.
func TestClosedSubscriber(t *testing.T) {
	addr, end := serve(t, "message")
	s, err := subscribe(t.Context(), []string{addr}, 1)
	if err != nil {
		t.Fatal(err)
	}
	eventually.Nil(t, func() error {
		if least, most := s.received(); least != int64(len("message")) || most != least {
			return fmt.Errorf("received %d to %d bytes", least, most)
		}
		return nil
	})
	end()
	s.ended.Wait()
	if err := s.close(); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("got %v, want the reason", err)
	}
}

// A timed subscriber notes each write of each message, wherever TCP cuts it, and fails on anything else.
func TestTimed(t *testing.T) {
	message := func(writes int, ago time.Duration) string {
		payload := make([]byte, protocol.MessageHeader)
		payload[15] = byte(writes) // version
		for range writes {
			payload = protocol.AppendFrame(payload, &protocol.Write{Op: protocol.Set, Key: "a", Value: []byte("1\r\n$2")}, time.Now().Add(-ago))
		}
		return "*3\r\n$7\r\nmessage\r\n" + bulk(protocol.DefaultChannel) + bulk(string(payload))
	}
	both := message(1, time.Hour) + message(2, time.Minute)
	addr, end := serve(t, both[:30], both[30:100], both[100:], "+other\r\n"+strings.Repeat("-", 100))
	a, err := newAudience(t.Context(), []string{addr}, 1)
	if err != nil {
		t.Fatal(err)
	}
	end()
	<-a.timed[0].ended
	delays := a.delays([]int{1}, a.counts())
	if len(delays) != 2 || delays[0] < time.Minute || delays[1] > 2*time.Minute {
		t.Errorf("got %v, want the two writes after the first one", delays)
	}
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("got %v, want the reply that is no message", err)
	}
}

// Only a write that took place counts.
func TestAnswer(t *testing.T) {
	committed := "*5\r\n:1\r\n:1700000000000000\r\n$8\r\n\r\nepoch\n\r\n:41\r\n$1\r\nR\r\n"
	for name, c := range map[string]struct {
		chunks []string
		want   string // part of the error; "" for none
	}{
		"replaced":             {[]string{committed}, ""},
		"created":              {[]string{strings.Replace(committed, "R", "C", 1)}, ""},
		"in parts":             {[]string{committed[:1], committed[1:37], committed[37:52], committed[52:]}, ""},
		"after its deadline":   {[]string{"*2\r\n:0\r\n:1700000000000000\r\n"}, "refused"},
		"an error":             {[]string{"-NOSCRIPT No", " matching script\r\n"}, "NOSCRIPT No matching"},
		"cut":                  {[]string{committed[:len(committed)-1]}, "EOF"},
		"larger than expected": {[]string{strings.Repeat("x", 600)}, "512 bytes"},
	} {
		client, server := net.Pipe()
		go func() {
			for _, chunk := range c.chunks {
				_, _ = io.WriteString(server, chunk)
			}
			_ = server.Close()
		}()
		if err := answer(client, make([]byte, 512)); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		_ = client.Close()
	}
}
