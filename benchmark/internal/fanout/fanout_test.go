package fanout

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
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

// A connection that the server closes fails the measurement.
func TestClosedSubscriber(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	closing := make(chan struct{})
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
		fmt.Fprintf(conn, "*3\r\n$9\r\nsubscribe\r\n%s:1\r\nmessage", bulk(protocol.DefaultChannel))
		<-closing
	}()
	s, err := subscribe(t.Context(), []string{ln.Addr().String()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	eventually.Nil(t, func() error {
		if least, most := s.received(); least != int64(len("message")) || most != least {
			return fmt.Errorf("received %d to %d bytes", least, most)
		}
		return nil
	})
	close(closing)
	s.ended.Wait()
	if err := s.close(); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("got %v, want the reason", err)
	}
}
