package writer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// TestTricklingImports has clients that keep all places with a byte now and then. Others get their turn.
func TestTricklingImports(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	ended := make(chan summary, maxImports)
	for n := range maxImports {
		s := w.dial(t)
		s.begin(t, "POST /import", 1<<20)
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
				if _, err := io.WriteString(s, "\n"); err != nil {
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
		if sum.Status != "stopped" || sum.Reason != errSlow.Error() || sum.Written != 1 {
			t.Errorf("it ended with %+v", sum)
		}
	case <-time.After(time.Minute):
		t.Error("no client was told that it has to give up its place")
	}
}

// TestPlaces asks for a place while none is free: only an import that is too slow gives up its own, and of
// several the slowest.
func TestPlaces(t *testing.T) {
	now := time.Now()
	waiting := func(since time.Duration) *patientReader { return &patientReader{since: now.Add(-since)} }
	between := func(waited time.Duration) *patientReader { return &patientReader{waited: waited} }
	for name, tt := range map[string]struct {
		running []*patientReader
		slowest int // -1 for none
	}{
		"fast":             {[]*patientReader{between(0), between(slowAfter - 1), waiting(0), waiting(slowAfter / 2)}, -1},
		"one waits":        {[]*patientReader{between(0), between(0), waiting(slowAfter), between(1)}, 2},
		"one has waited":   {[]*patientReader{between(0), between(0), between(slowAfter + 1), between(1)}, 2},
		"waits and waited": {[]*patientReader{between(0), {since: now.Add(-slowAfter / 2), waited: slowAfter / 2}, between(0), between(1)}, 1},
		"all":              {[]*patientReader{waiting(2 * slowAfter), waiting(3 * slowAfter), waiting(2 * slowAfter), waiting(slowAfter)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlaces()
			var all []*transfer
			for _, in := range tt.running {
				tr := newTransfer(t)
				tr.in = in
				if !p.enter(tr, 0) {
					t.Fatal("there is no place")
				}
				all = append(all, tr)
			}
			left := make(chan struct{})
			go func() {
				defer close(left)
				if tt.slowest >= 0 {
					<-all[tt.slowest].ctx.Done()
					p.leave(all[tt.slowest])
				}
			}()
			if got := p.enter(newTransfer(t), time.Minute); got != (tt.slowest >= 0) {
				t.Errorf("entered: %v", got)
			}
			<-left
			for i, tr := range all {
				if stopped := tr.ctx.Err() != nil; stopped != (i == tt.slowest) {
					t.Errorf("import %d was stopped: %v", i, stopped)
				}
			}
		})
	}
}

// TestPace waits for a client: its last paceBytes count.
func TestPace(t *testing.T) {
	p := &patientReader{}
	step := func(took time.Duration, n int) {
		p.since = time.Now().Add(-took)
		p.end(n)
	}
	step(time.Second, paceBytes-1)
	if waited := p.waitedFor(time.Now()); waited < time.Second {
		t.Errorf("waited for %v", waited)
	}
	step(time.Minute, 1)
	if waited := p.waitedFor(time.Now()); waited != 0 {
		t.Errorf("waited for %v", waited)
	}
}
