package measure

import (
	"math"
	"testing"
)

func TestFit(t *testing.T) {
	for name, c := range map[string]struct {
		x, y []float64
		want Line
	}{
		"no points":            {nil, nil, Line{}},
		"one point":            {[]float64{5}, []float64{7}, Line{Base: 7}},
		"twice at one place":   {[]float64{5, 5}, []float64{6, 8}, Line{Base: 7, Residual: 1}},
		"exactly on a line":    {[]float64{20, 100, 400}, []float64{87, 167, 467}, Line{Base: 67, Slope: 1}},
		"off a line":           {[]float64{0, 1, 2, 3}, []float64{1, 1, 3, 3}, Line{Base: 0.8, Slope: 0.8, Residual: math.Sqrt(0.2)}},
		"falling, from far":    {[]float64{1e6, 1e6 + 2}, []float64{4, 0}, Line{Base: 2e6 + 4, Slope: -2}},
		"more values than x's": {[]float64{0, 1}, []float64{0, 2, 100}, Line{Slope: 2}},
	} {
		got := Fit(c.x, c.y)
		for _, d := range []float64{got.Base - c.want.Base, got.Slope - c.want.Slope, got.Residual - c.want.Residual} {
			if math.Abs(d) > 1e-9*max(1, math.Abs(c.want.Base)) {
				t.Errorf("%s: got %+v, want %+v", name, got, c.want)
				break
			}
		}
	}
}

// A deviation of a tenth has the same weight for a small value as for a large one.
func TestFitRelative(t *testing.T) {
	x, exact := []float64{0, 100, 1000}, []float64{20, 80, 620}
	if got := FitRelative(x, exact); math.Abs(got.Base-20) > 1e-9 || math.Abs(got.Slope-0.6) > 1e-9 || got.Residual > 1e-9 {
		t.Errorf("got %+v, want 20 + 0.6 x", got)
	}
	got := FitRelative(x, []float64{20, 80, 682})
	if math.Abs(got.Base-20) > 1 || got.Residual < 0.005 || got.Residual > 0.1 {
		t.Errorf("got %+v, want a base that the largest point does not move, and a residual below a tenth", got)
	}
}
