package measure

import "time"

// Served is an answer: when it came, and who gave it.
type Served struct {
	At time.Duration // since the beginning
	By string
}

// Balanced returns how long after since the load was spread over as many servers as wanted, and
// stayed so to the end: the end of the first of the windows in all of which each server gave at least
// half of its fair share. Answers that came before since do not count. ok is false when it never was.
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
	// The last window is cut short by the end of the load.
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
