package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// idle opens connections, reads one post on each, and holds them for a while without a word.
func idle(ctx context.Context, out io.Writer, addr string, connections int, duration time.Duration) error {
	held := make([]net.Conn, 0, connections)
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for i := range connections {
		// From several addresses of the loopback net, or the ports of one would run short.
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/10_000))}
		c, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		held = append(held, c)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, "GET /post?id=post-7 HTTP/1.1\r\nHost: idle\r\n\r\n"); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("connection %d was answered %s", i+1, res.Status)
		}
	}
	if _, err := fmt.Fprintf(out, "%d connections are idle\n", connections); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
	return nil
}
