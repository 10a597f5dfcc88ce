package writer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// TestTricklingImports has clients that hold all places and send 50 KB/s each. Others get their turn.
func TestTricklingImports(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr(), func(c *Config) { c.patience = 500 * time.Millisecond })
	db := b.Client(t)
	ended := make(chan summary, maxImports)
	for n := range maxImports {
		s := w.dial(t)
		s.begin(t, "POST /import", 1<<30)
		id := fmt.Sprint("post-", n)
		s.write(t, line(id, "t"))
		eventually.True(t, id, func() bool { return stored(t, db, id) != "" })
		go func() {
			var sum summary
			if res, err := http.ReadResponse(bufio.NewReader(s), nil); err == nil && json.NewDecoder(res.Body).Decode(&sum) == nil {
				ended <- sum
			}
		}()
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(s, strings.Repeat("\n", 1<<10)); err != nil {
					return // closed by the writer, or with the test
				}
			}
		}()
	}
	for range 2 {
		eventually.Nil(t, func() error {
			if res := w.do(t, "POST", "/import", line("a", "t")); res.status != 200 {
				return fmt.Errorf("%d %s", res.status, res.body)
			}
			return nil
		})
	}
	select {
	case sum := <-ended:
		if sum.Status != "stopped" || sum.Reason != errIdle.Error() || sum.Written != 1 {
			t.Errorf("it ended with %+v", sum)
		}
	case <-time.After(time.Minute):
		t.Error("no client was told that it has to give up its place")
	}
}

// TestPlaces asks for a place while none is free: only an import that is idle for too long gives up its own, and of
// several the one that is idle longest.
func TestPlaces(t *testing.T) {
	const patience = 5 * time.Second
	now := time.Now()
	waits := func(idle, since time.Duration) *patientReader {
		return &patientReader{now: func() time.Time { return now }, idle: idle, since: now.Add(-since)}
	}
	works := func(idle, since time.Duration) *patientReader {
		return &patientReader{now: func() time.Time { return now }, idle: idle, until: now.Add(-since)}
	}
	for name, tt := range map[string]struct {
		running []*patientReader
		idlest  int // -1 for none
	}{
		"busy":              {[]*patientReader{works(0, 0), works(patience-1, 0), waits(0, patience-1), waits(patience/2, patience/2-1)}, -1},
		"one waits":         {[]*patientReader{works(0, 0), works(1, 0), waits(0, patience), waits(0, 1)}, 2},
		"one has waited":    {[]*patientReader{works(0, 0), works(0, 0), works(patience, 0), works(1, 0)}, 2},
		"waits again":       {[]*patientReader{works(0, 0), waits(patience/2, patience/2), works(0, 0), works(1, 0)}, 1},
		"works again":       {[]*patientReader{works(patience, 1), works(2*patience, patience+1), works(0, 0), works(1, 0)}, -1},
		"all":               {[]*patientReader{waits(0, 2*patience), waits(0, 3*patience), waits(0, 2*patience), waits(0, patience)}, 1},
		"all, the last one": {[]*patientReader{waits(0, patience), waits(0, patience+1), waits(0, patience+2), waits(0, patience+3)}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 { // imports that run have no order
				p := newPlaces(patience)
				enterOneTooMany(t, &p, tt.running, tt.idlest)
			}
		})
	}
}

// enterOneTooMany fills p with imports that read from running, and asks for one more place. That is to be the place
// of the import with index idlest, if that is not below 0.
func enterOneTooMany(t *testing.T, p *places, running []*patientReader, idlest int) {
	t.Helper()
	var all []*transfer
	for _, in := range running {
		tr := newTransfer(t)
		tr.in = in
		if !p.enter(tr, 0) {
			t.Fatal("there is no place")
		}
		all = append(all, tr)
	}
	got := make(chan bool, 1)
	late := newTransfer(t)
	go func() { got <- p.enter(late, time.Minute) }()
	if idlest >= 0 {
		select {
		case <-all[idlest].ctx.Done():
		case <-time.After(5 * time.Second):
			t.Fatalf("import %d was not stopped", idlest)
		}
		p.leave(all[idlest])
	}
	if entered := <-got; entered != (idlest >= 0) {
		t.Errorf("entered: %v", entered)
	}
	for i, tr := range all {
		if stopped := tr.ctx.Err() != nil; stopped != (i == idlest) {
			t.Errorf("import %d was stopped: %v", i, stopped)
		}
	}
}

// An import whose place is promised to a second one is not stopped again for a third: that would wait in vain.
func TestAPlaceIsPromisedOnce(t *testing.T) {
	p := newPlaces(1)
	idle := newTransfer(t)
	for range maxImports - 1 {
		busy := newTransfer(t)
		busy.in.now = func() time.Time { return time.Time{} }
		if !p.enter(busy, 0) {
			t.Fatal("there is no place")
		}
	}
	idle.in.idle, idle.in.until = time.Hour, time.Now()
	if !p.enter(idle, 0) {
		t.Fatal("there is no place")
	}
	second := make(chan bool)
	go func() { second <- p.enter(newTransfer(t), time.Minute) }()
	<-idle.ctx.Done()
	if p.enter(newTransfer(t), time.Minute) {
		t.Error("a third import has entered")
	}
	p.leave(idle)
	if !<-second {
		t.Error("the second import has not entered")
	}
}

// The idle time of a client grows at any rate that has the writer wait for most of the time, and that of a client
// that keeps the writer busy does not grow.
func TestIdleTime(t *testing.T) {
	for name, tt := range map[string]struct {
		wait, work time.Duration // for 64 KiB
		want       time.Duration // after a minute
	}{
		"14 KB/s":                 {4600 * time.Millisecond, 10 * time.Millisecond, 59 * time.Second},
		"1 MB/s":                  {60 * time.Millisecond, 5 * time.Millisecond, 50 * time.Second},
		"waits for a third":       {time.Millisecond, 2 * time.Millisecond, 0},
		"never waits":             {0, time.Millisecond, 0},
		"waits in vain for Redis": {time.Millisecond, 20 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(0, 0)
			p := &patientReader{ctx: t.Context(), conn: http.NewResponseController(&recorder{}), now: func() time.Time { return now }}
			for now.Before(time.Unix(60, 0)) {
				if err := p.begin(); err != nil {
					t.Fatal(err)
				}
				now = now.Add(tt.wait)
				p.end()
				now = now.Add(tt.work)
			}
			if got := p.idleTime(); got < tt.want || tt.want == 0 && got > 0 {
				t.Errorf("%v after a minute, want %v", got, tt.want)
			}
		})
	}
}

// An hour of work does not make up for waiting to come.
func TestWorkIsNotSaved(t *testing.T) {
	now := time.Unix(0, 0)
	p := &patientReader{ctx: t.Context(), conn: http.NewResponseController(&recorder{}), now: func() time.Time { return now }}
	for range 2 {
		if err := p.begin(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		if idle := p.idleTime(); idle != time.Second {
			t.Errorf("%v, want 1s", idle)
		}
		p.end()
		now = now.Add(time.Hour)
	}
}
