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

// TestSlowImportsGiveUpTheirPlaces has slow clients that hold all places and send 50 KB/s each. Other imports still get
// places.
func TestSlowImportsGiveUpTheirPlaces(t *testing.T) {
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
					return // closed by the writer or at the end of the test
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
			t.Errorf("a slow import ended with %+v, want it stopped with reason %q", sum, errIdle)
		}
	case <-time.After(time.Minute):
		t.Error("no slow import was stopped")
	}
}

// TestPlaces enters while all places are taken: the import with the longest idle time is stopped, and only if that is
// too long.
func TestPlaces(t *testing.T) {
	const patience = 5 * time.Second
	now := time.Now()
	waiting := func(idle, since time.Duration) *patientReader {
		return &patientReader{now: func() time.Time { return now }, idle: idle, since: now.Add(-since)}
	}
	working := func(idle, since time.Duration) *patientReader {
		return &patientReader{now: func() time.Time { return now }, idle: idle, until: now.Add(-since)}
	}
	for name, tt := range map[string]struct {
		running []*patientReader
		idlest  int // -1 for none
	}{
		"busy":              {[]*patientReader{working(0, 0), working(patience-1, 0), waiting(0, patience-1), waiting(patience/2, patience/2-1)}, -1},
		"one waits":         {[]*patientReader{working(0, 0), working(1, 0), waiting(0, patience), waiting(0, 1)}, 2},
		"one has waited":    {[]*patientReader{working(0, 0), working(0, 0), working(patience, 0), working(1, 0)}, 2},
		"waits again":       {[]*patientReader{working(0, 0), waiting(patience/2, patience/2), working(0, 0), working(1, 0)}, 1},
		"works again":       {[]*patientReader{working(patience, 1), working(2*patience, patience+1), working(0, 0), working(1, 0)}, -1},
		"all":               {[]*patientReader{waiting(0, 2*patience), waiting(0, 3*patience), waiting(0, 2*patience), waiting(0, patience)}, 1},
		"all, the last one": {[]*patientReader{waiting(0, patience), waiting(0, patience+1), waiting(0, patience+2), waiting(0, patience+3)}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			for range 5 { // the order of the map of running imports is random
				p := newPlaces(patience)
				enterOneTooMany(t, &p, tt.running, tt.idlest)
			}
		})
	}
}

// enterOneTooMany fills p with imports that read from running, and enters one more. It expects that the import with
// index idlest is stopped, or none if idlest is negative.
func enterOneTooMany(t *testing.T, p *places, running []*patientReader, idlest int) {
	t.Helper()
	var all []*transfer
	for _, in := range running {
		tr := newTransfer(t)
		tr.in = in
		if !p.enter(tr, 0) {
			t.Fatal("no place is free")
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
			t.Fatalf("import %d, the idlest, was not stopped", idlest)
		}
		p.leave(all[idlest])
	}
	if entered := <-got; entered != (idlest >= 0) {
		t.Errorf("the additional import entered: %v, want %v", entered, !entered)
	}
	for i, tr := range all {
		if stopped := tr.ctx.Err() != nil; stopped != (i == idlest) {
			t.Errorf("import %d was stopped: %v, want %v", i, stopped, !stopped)
		}
	}
}

// While one import waits for the place of a stopped one, no other import waits for the same place.
func TestPlaceIsPromisedOnce(t *testing.T) {
	p := newPlaces(1)
	idle := newTransfer(t)
	for range maxImports - 1 {
		busy := newTransfer(t)
		busy.in.now = func() time.Time { return time.Time{} }
		if !p.enter(busy, 0) {
			t.Fatal("no place is free")
		}
	}
	idle.in.idle, idle.in.until = time.Hour, time.Now()
	if !p.enter(idle, 0) {
		t.Fatal("no place is free")
	}
	second := make(chan bool)
	go func() { second <- p.enter(newTransfer(t), time.Minute) }()
	<-idle.ctx.Done()
	if p.enter(newTransfer(t), time.Minute) {
		t.Error("a third import entered")
	}
	p.leave(idle)
	if !<-second {
		t.Error("the second import did not enter")
	}
}

// The idle time grows if the writer mostly waits for the client, at whatever rate the client sends. It does not grow if
// the client keeps the writer busy.
func TestIdleTime(t *testing.T) {
	for name, tt := range map[string]struct {
		wait, work time.Duration // per 64 KiB
		want       time.Duration // minimum idle time after a minute; 0 means exactly 0
	}{
		"14 KB/s":               {4600 * time.Millisecond, 10 * time.Millisecond, 59 * time.Second},
		"1 MB/s":                {60 * time.Millisecond, 5 * time.Millisecond, 50 * time.Second},
		"waits for a third":     {time.Millisecond, 2 * time.Millisecond, 0},
		"never waits":           {0, time.Millisecond, 0},
		"Redis does not answer": {time.Millisecond, 20 * time.Second, 0},
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
				t.Errorf("idle time %v after a minute, want %v", got, tt.want)
			}
		})
	}
}

// Work is not credited against later waits.
func TestWorkIsNotCredited(t *testing.T) {
	now := time.Unix(0, 0)
	p := &patientReader{ctx: t.Context(), conn: http.NewResponseController(&recorder{}), now: func() time.Time { return now }}
	for range 2 {
		if err := p.begin(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		if idle := p.idleTime(); idle != time.Second {
			t.Errorf("idle time %v, want 1s", idle)
		}
		p.end()
		now = now.Add(time.Hour)
	}
}
