package measure

import (
	"time"

	"heavy-read-api/internal/stack/state"
)

// tally adds up counters over the restarts of their processes, and over scrapes that failed.
type tally struct {
	began     float64 // time of its start, Unix seconds
	processes map[string]tallied
	total     map[place]float64
}

// place is a counter of all processes of a role.
type place struct{ role, counter string }

// tallied holds the counters of one process.
type tallied struct {
	started float64            // time at which the process started, Unix seconds
	newest  map[string]float64 // counters at the newest scrape
	grown   map[string]float64 // growth since the start of the tally
}

func newTally(began time.Time) tally {
	return tally{
		began: float64(began.UnixMilli()) / 1000, processes: make(map[string]tallied), total: make(map[place]float64),
	}
}

// add records a scrape of a process.
func (t *tally) add(p state.Process, s sample) {
	before, seen := t.processes[p.Name]
	if !seen {
		before.grown = make(map[string]float64, len(s.counters))
		if s.started < t.began {
			before.started, before.newest = s.started, s.counters // what it counted before the tally began is not growth
		}
	}
	if before.started != s.started {
		before.newest = nil // a new process: its counters began at zero
	}
	for name, v := range s.counters {
		growth := increase(before.newest[name], v)
		before.grown[name] += growth
		t.total[place{p.Role, name}] += growth
	}
	t.processes[p.Name] = tallied{started: s.started, newest: s.counters, grown: before.grown}
}
