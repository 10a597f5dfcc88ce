package workload

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"heavy-read-api/internal/post"
)

// If the fortunes are installed, the generated texts have the same distribution of sizes.
func TestQuantiles(t *testing.T) {
	texts, err := Fortunes()
	if err != nil {
		t.Skip(err)
	}
	var real, made []int
	for _, text := range texts {
		real = append(real, len(text.Text))
	}
	for _, text := range generated(fortunes).texts {
		made = append(made, len(text))
	}
	slices.Sort(real)
	slices.Sort(made)
	for _, q := range []float64{0.1, 0.25, 0.5, 0.75, 0.9, 0.95} {
		a, b := real[int(q*float64(len(real)))], made[int(q*float64(len(made)))]
		if math.Abs(float64(a-b)) > 0.05*float64(a)+1 {
			t.Errorf("quantile %v: %d bytes for the fortunes, %d for the generated texts", q, a, b)
		}
	}
	if a, b := mean(real), mean(made); math.Abs(a-b) > 0.1*a {
		t.Errorf("mean: %.0f bytes for the fortunes, %.0f for the generated texts", a, b)
	}
}

func mean(v []int) float64 {
	sum := 0
	for _, n := range v {
		sum += n
	}
	return float64(sum) / float64(len(v))
}

func TestMix(t *testing.T) {
	for _, m := range []*Mix{NewMix(), generated(fortunes)} {
		sizes := map[int]bool{}
		for rank := range 1000 {
			p := m.Post(rank, 3)
			if err := p.Validate(); err != nil {
				t.Fatal(err)
			}
			body := p.Encode(time.Now()).Body
			if err := m.Check(rank, 3, body); err != nil {
				t.Fatal(err)
			}
			sizes[len(body)] = true
			line, err := AppendLine(nil, p)
			if err != nil {
				t.Fatal(err)
			}
			back, err := post.Decode(bytes.TrimSpace(line))
			if err != nil || back != p {
				t.Fatalf("%s is decoded as %+v (%v), want %+v", line, back, err, p)
			}
		}
		if len(sizes) < 100 {
			t.Errorf("%s: %d different sizes in 1000 posts, want at least 100", m.Source, len(sizes))
		}
	}
}

// Check detects a wrong byte anywhere in a response.
func TestCheck(t *testing.T) {
	m := NewMix()
	good := m.Post(7, 1).Encode(time.Now()).Body
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if m.Check(7, 1, bad) == nil {
			t.Fatalf("Check accepted a changed byte %d of %s", i, good)
		}
		if m.Check(7, 1, good[:i]) == nil {
			t.Fatalf("Check accepted a response that was cut off after %d bytes", i)
		}
	}
	if m.Check(8, 1, good) == nil {
		t.Error("Check accepted the post of another rank")
	}
	if m.Check(7, 2, good) == nil {
		t.Error("Check accepted an older version")
	}
}
