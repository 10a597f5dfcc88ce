package workload

import (
	"math"
	"testing"
)

func TestZipf(t *testing.T) {
	const n, draws, theta = 1000, 2_000_000, 0.99
	z := NewZipf(1, n, theta)
	counts := make([]float64, n)
	for range draws {
		counts[z.Next()]++
	}
	harmonic := 0.0
	for i := range n {
		harmonic += math.Pow(float64(i+1), -theta)
	}
	for _, rank := range []int{0, 1, 9, 99, 999} {
		want := draws * math.Pow(float64(rank+1), -theta) / harmonic
		// Five standard deviations of a count.
		if math.Abs(counts[rank]-want) > 5*math.Sqrt(want) {
			t.Errorf("rank %d was drawn %v times, want about %.0f", rank, counts[rank], want)
		}
	}
}

func TestZipfRepeats(t *testing.T) {
	a, b, other := NewZipf(7, 100, 0.99), NewZipf(7, 100, 0.99), NewZipf(8, 100, 0.99)
	same := true
	for range 100 {
		x := a.Next()
		if x != b.Next() {
			t.Fatal("the same seed draws different ranks")
		}
		same = same && x == other.Next()
	}
	if same {
		t.Error("different seeds draw the same ranks")
	}
}
