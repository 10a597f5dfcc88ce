// Package measure computes quantiles, medians with their spread, ratios and distributions. Results are exact: all
// values are kept and sorted.
package measure

import (
	"cmp"
	"math"
	"slices"
)

// Quantile returns the q-quantile of the sorted values by the nearest-rank method: the smallest value such that at
// least a share q of the values is not greater. It is always a measured value, or zero when there are none.
func Quantile[T cmp.Ordered](sorted []T, q float64) T {
	if len(sorted) == 0 {
		var none T
		return none
	}
	rank := int(math.Ceil(q*float64(len(sorted)) - 1e-9)) // 0.07*100 is slightly above 7
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Spread is the median, the minimum and the maximum of several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// Summarize returns the spread of the rounds. The median of an even number of rounds is the mean of the two in the
// middle.
func Summarize(rounds []float64) Spread {
	n := len(rounds)
	if n == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(rounds))
	return Spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1], Rounds: n}
}

// Ratio returns the spread of a/b over the rounds. The values of one round are measured shortly after each other,
// so unrelated work on the machine affects both, and the ratios vary less than the values.
func Ratio(a, b []float64) Spread {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			ratios = append(ratios, a[i]/b[i])
		}
	}
	return Summarize(ratios)
}

// Point is a point of a cumulative distribution: Share is the share of the values that are at most Value.
type Point struct {
	Value float64 `json:"value"`
	Share float64 `json:"share"`
}

// CDF returns the cumulative distribution of the sorted values in at most points points. The last point is the
// maximum.
func CDF[T ~int64 | ~float64](sorted []T, points int) []Point {
	n := len(sorted)
	points = min(points, n)
	out := make([]Point, 0, points)
	for i := 1; i <= points; i++ {
		rank := i * n / points
		out = append(out, Point{Value: float64(sorted[rank-1]), Share: float64(rank) / float64(n)})
	}
	return out
}

// SavedFrom returns the share of revisits from which on the saving is at least wanted, interpolated linearly
// between the points. ok is false when no point reaches it. Points are sorted by Value, the share of revisits;
// Share is the saving.
func SavedFrom(points []Point, wanted float64) (revisits float64, ok bool) {
	for i, p := range points {
		if p.Share < wanted {
			continue
		}
		if i == 0 {
			return p.Value, true
		}
		before := points[i-1]
		return before.Value + (wanted-before.Share)/(p.Share-before.Share)*(p.Value-before.Value), true
	}
	return 0, false
}
