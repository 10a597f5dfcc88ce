package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress shows the progress of a run. A terminal has a status line with the time left, which is redrawn; other
// outputs have one line for each part and each result.
type progress struct {
	out      io.Writer
	terminal bool
	stop     func()

	mu    sync.Mutex    // guards the fields below
	left  time.Duration // expected duration of the current step and those after it
	step  string
	takes time.Duration // expected duration of the step
	began time.Time
	shown bool // the status line is on the terminal
}

const redraw = 250 * time.Millisecond

func newProgress(out io.Writer, terminal bool, total time.Duration) *progress {
	p := &progress{out: out, terminal: terminal, left: total, stop: func() {}}
	if terminal {
		done, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			tick := time.NewTicker(redraw)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					p.mu.Lock()
					p.draw(time.Now())
					p.mu.Unlock()
				}
			}
		}()
		p.stop = sync.OnceFunc(func() { close(done); <-ended })
	}
	return p
}

// close erases the line.
func (p *progress) close() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

// Part implements suite.Progress.
func (p *progress) Part(title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, "\n%s\n", title)
}

// Step implements suite.Progress.
func (p *progress) Step(what string, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = max(0, p.left-p.takes)
	p.step, p.takes, p.began = what, takes, time.Now()
	if p.terminal {
		p.draw(p.began)
	}
}

// Say implements suite.Progress.
func (p *progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintf(p.out, "  "+format+"\n", args...)
}

func (p *progress) draw(now time.Time) {
	if p.step == "" {
		return
	}
	left := p.left - min(now.Sub(p.began), p.takes)
	fmt.Fprintf(p.out, "\r\x1b[K  %s ... about %s left", p.step, max(left, 0).Round(time.Second))
	p.shown = true
}

func (p *progress) erase() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
