package report

import (
	"slices"
	"time"

	"heavy-read-api/benchmark/internal/load"
)

// timelineStep is the width of a bin of a timeline.
const timelineStep = 250 * time.Millisecond

// Event is something that happened during a timeline.
type Event struct {
	At    float64 // seconds since the first read was due
	Name  string
	Fault bool // drawn in the colour of failures
}

// Timeline contains the reads over time during a fault.
type Timeline struct {
	Readers  []string // sorted
	Answered [][]int  // by reader and bin
	Failed   []int    // by bin
	Events   []Event
}

// NewTimeline returns the timeline of reads.
func NewTimeline(r *load.SteadyResult, events ...Event) Timeline {
	t := Timeline{Events: events}
	last := time.Duration(0)
	for _, a := range r.Served {
		last = max(last, a.At)
		if !slices.Contains(t.Readers, a.By) {
			t.Readers = append(t.Readers, a.By)
		}
	}
	if n := len(r.Failed); n > 0 {
		last = max(last, r.Failed[n-1])
	}
	slices.Sort(t.Readers)
	bins := int(last/timelineStep) + 1
	t.Failed = make([]int, bins)
	t.Answered = make([][]int, len(t.Readers))
	for i := range t.Answered {
		t.Answered[i] = make([]int, bins)
	}
	for _, a := range r.Served {
		t.Answered[slices.Index(t.Readers, a.By)][a.At/timelineStep]++
	}
	for _, at := range r.Failed {
		t.Failed[at/timelineStep]++
	}
	return t
}

// perSecond converts the count of a bin to a rate.
func perSecond(count int) float64 { return float64(count) / timelineStep.Seconds() }
