package measure

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/stack/state"
)

// Totals survive the restart of a process and a gap in its scrapes, and leave out what was counted before.
func TestTally(t *testing.T) {
	c := &Collector{tally: newTally(time.Unix(1000, 0))}
	add := func(name string, started, reads float64) {
		c.tally.add(state.Process{Name: name, Role: state.Reader}, sample{started: started, counters: map[string]float64{"reads": reads}})
	}
	for _, step := range []struct {
		name            string
		process         string
		started, reads  float64
		total, ofReader float64
	}{
		{"counted before the tally began", "reader-1", 900, 50, 0, 0},
		{"growth", "reader-1", 900, 60, 10, 10},
		{"another process, started later", "reader-2", 1001, 5, 15, 10},
		{"a gap", "reader-1", 900, 90, 45, 40},
		{"a restart", "reader-1", 1002, 7, 52, 47},
		{"a restart with a higher count", "reader-1", 1003, 100, 152, 147},
		{"a counter that was set back", "reader-1", 1003, 1, 153, 148},
	} {
		add(step.process, step.started, step.reads)
		if got := c.Total(state.Reader, "reads"); got != step.total {
			t.Errorf("%s: total %v, want %v", step.name, got, step.total)
		}
		if got := c.Grown("reader-1", "reads"); got != step.ofReader {
			t.Errorf("%s: reader-1 %v, want %v", step.name, got, step.ofReader)
		}
	}
	if got := c.Total(state.Gateway, "reads"); got != 0 {
		t.Errorf("total of a role without processes %v", got)
	}
}

// Between two points reads are only counted: the rates of a point are those since the last one.
func TestCountLeavesRatesAlone(t *testing.T) {
	var reads, scrapes atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		scrapes.Add(1)
		fmt.Fprintf(w, "# TYPE http_requests_total counter\nhttp_requests_total{route=\"/post\",code=\"200\"} %d\n", reads.Load())
	}))
	defer srv.Close()
	c := NewCollector()
	defer c.Close()
	all := []state.Process{{Name: "reader-1", Role: state.Reader, Metrics: srv.URL}}
	c.Collect(t.Context(), all)
	reads.Add(100)
	c.Count(t.Context(), all)
	if got := c.Total(state.Reader, "reads"); got != 100 {
		t.Errorf("total %v after 100 reads", got)
	}
	if v := c.Collect(t.Context(), all)["reader-1"]; v["reads"] <= 0 {
		t.Errorf("values %v: the reads before the count are missing", v)
	}
	if n := scrapes.Load(); n != 3 {
		t.Errorf("%d scrapes, want 3", n)
	}
}
