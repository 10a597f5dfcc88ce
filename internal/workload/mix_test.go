package workload

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"heavy-read-api/internal/post"
)

// Where the fortunes are installed, the sizes that stand in for them are theirs.
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
			t.Errorf("at %v the fortunes have %d bytes, the generated texts %d", q, a, b)
		}
	}
	if a, b := mean(real), mean(made); math.Abs(a-b) > 0.1*a {
		t.Errorf("the fortunes have %.0f bytes on average, the generated texts %.0f", a, b)
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
				t.Fatalf("%s is read back as %+v (%v), want %+v", line, back, err, p)
			}
		}
		if len(sizes) < 100 {
			t.Errorf("%s: %d sizes in 1000 posts, want many", m.Source, len(sizes))
		}
	}
}

// Whatever byte of an answer is wrong, Check sees it.
func TestCheck(t *testing.T) {
	m := NewMix()
	good := m.Post(7, 1).Encode(time.Now()).Body
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if m.Check(7, 1, bad) == nil {
			t.Fatalf("a changed byte %d of %s was not seen", i, good)
		}
		if m.Check(7, 1, good[:i]) == nil {
			t.Fatalf("an answer that ends after %d bytes was not seen", i)
		}
	}
	if m.Check(8, 1, good) == nil {
		t.Error("the post of another rank was not seen")
	}
	if m.Check(7, 2, good) == nil {
		t.Error("an older version was not seen")
	}
}
