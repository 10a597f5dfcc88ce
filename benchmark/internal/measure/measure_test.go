package measure

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		values []int
		q      float64
		want   int
	}{
		{nil, 0.5, 0},
		{[]int{7}, 0, 7}, {[]int{7}, 0.5, 7}, {[]int{7}, 1, 7},
		{[]int{1, 2}, 0.5, 1}, {[]int{1, 2}, 0.51, 2},
		{[]int{1, 2, 3}, 0.5, 2},
		{hundred, 0, 1}, {hundred, 0.07, 7}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 0.999, 100}, {hundred, 1, 100},
	} {
		if got := Quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.values, got, c.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		rounds []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{3, 3, 3, 1}},
		{[]float64{4, 1}, Spread{2.5, 1, 4, 2}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9, 3}},
	} {
		before := slices.Clone(c.rounds)
		if got := Summarize(c.rounds); got != c.want {
			t.Errorf("Summarize(%v) = %+v, want %+v", c.rounds, got, c.want)
		}
		if !slices.Equal(before, c.rounds) {
			t.Errorf("Summarize changed %v to %v", before, c.rounds)
		}
	}
}

// The machine was half as fast in the second round: the ratio of the rounds does not show it.
func TestRatio(t *testing.T) {
	if got, want := Ratio([]float64{100, 50}, []float64{10, 5}), (Spread{10, 10, 10, 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Ratio([]float64{1, 2, 3}, []float64{1, 0}); got != (Spread{1, 1, 1, 1}) {
		t.Errorf("unequal lengths and a divisor of 0: got %+v", got)
	}
}

func TestCDF(t *testing.T) {
	values := make([]time.Duration, 1000)
	for i := range values {
		values[i] = time.Duration(i + 1)
	}
	points := CDF(values, 4)
	want := []Point{{250, 0.25}, {500, 0.5}, {750, 0.75}, {1000, 1}}
	if !slices.Equal(points, want) {
		t.Errorf("got %v, want %v", points, want)
	}
	if points := CDF(values[:2], 10); !slices.Equal(points, []Point{{1, 0.5}, {2, 1}}) {
		t.Errorf("fewer values than points: %v", points)
	}
	if points := CDF([]time.Duration(nil), 10); len(points) != 0 {
		t.Errorf("no values: %v", points)
	}
}

func TestSavedFrom(t *testing.T) {
	points := []Point{{0, 0}, {0.2, 0.1}, {0.6, 0.3}, {0.9, 0.45}}
	for _, c := range []struct {
		wanted, from float64
		ok           bool
	}{{0.2, 0.4, true}, {0.1, 0.2, true}, {0, 0, true}, {0.5, 0, false}} {
		from, ok := SavedFrom(points, c.wanted)
		if ok != c.ok || math.Abs(from-c.from) > 1e-9 {
			t.Errorf("%v is saved from %v (%v), want %v (%v)", c.wanted, from, ok, c.from, c.ok)
		}
	}
}

func TestBalanced(t *testing.T) {
	const window = 100 * time.Millisecond
	// serve appends an answer per millisecond, from the given readers in turn.
	serve := func(answers []Served, from, to time.Duration, by ...string) []Served {
		for at := from; at < to; at += time.Millisecond {
			answers = append(answers, Served{At: at, By: by[int(at/time.Millisecond)%len(by)]})
		}
		return answers
	}
	var degraded []Served
	degraded = serve(degraded, 0, 500*time.Millisecond, "a", "b", "c")
	degraded = serve(degraded, 500*time.Millisecond, 900*time.Millisecond, "b", "c")
	recovered := serve(slices.Clone(degraded), 900*time.Millisecond, 2*time.Second, "a", "b", "c")
	for _, c := range []struct {
		name    string
		answers []Served
		since   time.Duration
		servers int
		at      time.Duration
		ok      bool
	}{
		{"back after 400 ms", recovered, 500 * time.Millisecond, 3, 500 * time.Millisecond, true},
		{"since a later time", recovered, 950 * time.Millisecond, 3, window, true},
		{"never back", degraded, 500 * time.Millisecond, 3, 0, false},
		{"more servers than there are", recovered, 500 * time.Millisecond, 4, 0, false},
		{"nothing was served", nil, 0, 3, 0, false},
		{"one server below half of its share", serve(serve(nil, 0, time.Second, "a", "b"), time.Second, 2*time.Second, "a", "a", "a", "a", "a", "a", "b"), time.Second, 2, 0, false},
	} {
		at, ok := Balanced(c.answers, c.since, window, c.servers)
		if at != c.at || ok != c.ok {
			t.Errorf("%s: balanced after %v (%v), want %v (%v)", c.name, at, ok, c.at, c.ok)
		}
	}
}
