// Package workload generates the posts and the request distribution of the benchmarks, reproducibly from a
// seed.
package workload

import (
	"math"
	"math/rand/v2"
	"sort"
)

// Zipf draws ranks from 0 to n-1 with a probability proportional to 1/(rank+1)^theta. The generator of
// math/rand requires theta > 1, but cache benchmarks such as YCSB use 0.99, so this one inverts the
// cumulative distribution. It is not safe for concurrent use.
type Zipf struct {
	rng        *rand.Rand
	cumulative []float64
}

// NewZipf returns a Zipf over n ranks. It allocates 8 bytes per rank.
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
