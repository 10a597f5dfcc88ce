package supervisor

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	maxTerminalQueue = 64 << 10               // bytes that are queued for a blocked terminal
	terminalFlush    = 500 * time.Millisecond // how long Close waits for a terminal to take what is queued
)

// Terminal passes lines on to standard output or standard error without ever blocking the writer.
// Ctrl-S on a terminal, or a pipe whose reader stalls, would otherwise block the supervisor, and
// through their pipes the children. Lines that do not fit into the queue are dropped and counted.
type Terminal struct {
	out  io.Writer
	wake chan struct{} // holds a token while run has something to do
	done chan struct{} // closed by run when it ends

	mu      sync.Mutex // guards all fields below
	queue   []byte
	dropped int // number of lines dropped since run last emptied the queue
	closed  bool
}

// NewTerminal returns a terminal for the caller to close.
func NewTerminal(out io.Writer) *Terminal {
	t := &Terminal{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go t.run()
	return t
}

// Write queues or drops p, which is one or more whole lines. It never fails.
func (t *Terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	// After a dropped line the following ones are dropped too, so that there is one gap.
	if t.dropped > 0 || len(t.queue)+len(p) > maxTerminalQueue {
		t.dropped++
	} else {
		t.queue = append(t.queue, p...)
	}
	t.mu.Unlock()
	t.signal()
	return len(p), nil
}

// Close lets run write the queue, for terminalFlush at most. A terminal that is still blocked then blocks run
// until the end of the process.
func (t *Terminal) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.signal()
	timer := time.NewTimer(terminalFlush)
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
	}
}

func (t *Terminal) signal() {
	select {
	case t.wake <- struct{}{}:
	default: // run has a token already
	}
}

// run writes until Close.
func (t *Terminal) run() {
	defer close(t.done)
	for range t.wake {
		t.mu.Lock()
		lines, dropped, closed := t.queue, t.dropped, t.closed
		t.queue, t.dropped = nil, 0
		t.mu.Unlock()
		// The log files have the lines too, so a closed terminal is not an error.
		_, _ = t.out.Write(lines)
		if dropped > 0 {
			fmt.Fprintf(t.out, "(%d lines dropped because the terminal was blocked; see the log files)\n", dropped)
		}
		if closed {
			return
		}
	}
}
