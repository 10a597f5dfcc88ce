package measure

import "time"

// Served is the time of an answer and the reader that gave it.
type Served struct {
	At time.Duration // since the beginning
	By string
}

// Balanced returns how long after since the load was spread over the servers and stayed so: the end of the first
// window from which on, in every window, each server gave at least half of its fair share of the answers.
// Answers before since do not count. ok is false when there is no such window.
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
	// The end of the load cuts the last window short.
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
