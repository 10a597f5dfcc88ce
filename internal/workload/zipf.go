// Package workload generates the posts and requests of benchmarks. Results depend only on the seed.
package workload

import (
	"math"
	"math/rand/v2"
	"sort"
)

// Zipf draws ranks from 0 to n-1 with a probability proportional to 1/(rank+1)^theta: a few ranks are very frequent,
// and there is a long tail. math/rand's generator requires theta above 1, while caches are measured with 0.99 (as in
// YCSB), so this one inverts the cumulative distribution.
type Zipf struct {
	rng        *rand.Rand
	cumulative []float64
}

// NewZipf returns a Zipf over n ranks. It takes 8 bytes per rank.
func NewZipf(seed uint64, n int, theta float64) *Zipf {
	z := &Zipf{rng: rand.New(rand.NewPCG(seed, 0)), cumulative: make([]float64, n)}
	sum := 0.0
	for i := range z.cumulative {
		sum += math.Pow(float64(i+1), -theta)
		z.cumulative[i] = sum
	}
	return z
}

// Next draws a rank.
func (z *Zipf) Next() int {
	u := z.rng.Float64() * z.cumulative[len(z.cumulative)-1]
	return min(sort.SearchFloat64s(z.cumulative, u), len(z.cumulative)-1)
}
