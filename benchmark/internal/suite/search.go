package suite

// precision is the ratio of the lowest rate that failed to the highest one that passed at which a search ends.
const precision = 1.1

// highest returns the highest rate for which holds returns true, to within a tenth: it doubles or halves the first
// rate until the result changes, and then bisects. A rate has failed when it fails twice, because a short stall of
// the machine must not end the search. The result is 0 when even the rate least fails, and never above most.
func highest(first, least, most int, holds func(rate int) (bool, error)) (int, error) {
	check := func(rate int) (bool, error) {
		ok, err := holds(rate)
		if err != nil || ok {
			return ok, err
		}
		return holds(rate)
	}
	good, bad := 0, 0
	for rate := first; good == 0 || bad == 0; {
		ok, err := check(rate)
		if err != nil {
			return good, err
		}
		if ok {
			good = rate
			if rate == most {
				return good, nil
			}
			rate = min(2*rate, most)
		} else {
			bad = rate
			if rate == least {
				return 0, nil
			}
			rate = max(rate/2, least)
		}
	}
	for float64(bad) > precision*float64(good) {
		rate := (good + bad) / 2
		if rate == good {
			break
		}
		ok, err := check(rate)
		if err != nil {
			return good, err
		}
		if ok {
			good = rate
		} else {
			bad = rate
		}
	}
	return good, nil
}
