package measure

import "time"

// Served is the time of an answer and the reader that sent it.
type Served struct {
	At time.Duration // since the start of the measurement
	By string
}

// Balanced returns the time from since until the answers were balanced over the servers and stayed balanced: the
// end of the first window after which each server sent at least half of its fair share of the answers in every
// window, that one included. Answers before since are ignored. ok is false when there is no such window.
func Balanced(answers []Served, since, window time.Duration, servers int) (at time.Duration, ok bool) {
	var windows []map[string]int
	totals := []int{}
	for _, a := range answers {
		if a.At < since {
			continue
		}
		i := int((a.At - since) / window)
		for len(windows) <= i {
			windows = append(windows, map[string]int{})
			totals = append(totals, 0)
		}
		windows[i][a.By]++
		totals[i]++
	}
	// The last window is incomplete.
	last := len(windows) - 2
	for i := last; i >= 0; i-- {
		fair := 0
		for _, n := range windows[i] {
			if 2*n*servers >= totals[i] {
				fair++
			}
		}
		if fair != servers {
			break
		}
		at, ok = time.Duration(i+1)*window, true
	}
	return at, ok
}
