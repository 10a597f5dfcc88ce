package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
)

// Holder is a copy that can be inspected.
type Holder interface {
	Buckets(ctx context.Context) (Part, error)
	Keys(ctx context.Context, buckets []int) (Part, error)
}

// Difference is a key whose entries differ.
type Difference struct {
	Key     string
	Right   *store.Item // nil: absent
	Suspect *store.Item // nil: absent
}

func (d Difference) String() string {
	text := func(i *store.Item) string {
		if i == nil {
			return "absent"
		}
		return fmt.Sprintf("version %d, checksum %016x", i.Version, i.Checksum)
	}
	return fmt.Sprintf("%q: %s instead of %s", d.Key, text(d.Suspect), text(d.Right))
}

// Bounds of Locate.
const (
	bucketRounds = 8 // comparisons of all buckets
	keyRounds    = 3 // comparisons of the keys of some buckets
)

// Locate names keys of which two copies have different entries. First it compares the digests of the buckets, then the
// keys of those that differ. The copies may be at different heads: a difference counts only if no write between the
// two heads can explain it (see explained). It returns none if the copies have become equal, and may return none or only
// a part when most buckets are being written.
func Locate(ctx context.Context, right, suspect Holder) (found []Difference, err error) {
	buckets, err := differing(ctx, right, suspect)
	if err != nil || len(buckets) == 0 {
		return nil, err
	}
	for range keyRounds {
		if found, err = locateIn(ctx, buckets, right, suspect); err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, nil
}

// differing returns at most replica.MaxBuckets buckets that differ. Buckets that are written between two answers differ
// too, but other ones in each round, so it repeats the comparison until few have always differed.
func differing(ctx context.Context, right, suspect Holder) (buckets []int, err error) {
	for round := range bucketRounds {
		a, err := right.Buckets(ctx)
		if err != nil {
			return nil, err
		}
		b, err := suspect.Buckets(ctx)
		if err != nil {
			return nil, err
		}
		if len(a.Buckets) != replica.Buckets || len(b.Buckets) != replica.Buckets {
			return nil, fmt.Errorf("%d and %d buckets, want %d", len(a.Buckets), len(b.Buckets), replica.Buckets)
		}
		var now []int
		for i := range a.Buckets {
			if a.Buckets[i] != b.Buckets[i] && (round == 0 || slices.Contains(buckets, i)) {
				now = append(now, i)
			}
		}
		if buckets = now; len(buckets) <= replica.MaxBuckets {
			return buckets, nil
		}
	}
	return buckets[:replica.MaxBuckets], nil
}

// locateIn compares the keys of some buckets.
func locateIn(ctx context.Context, buckets []int, right, suspect Holder) ([]Difference, error) {
	// The suspect is asked between two answers of the right one: what is absent in the older of two answers may have
	// been written since, and what is absent in the newer one deleted, so each of them shows what the other cannot.
	first, err := right.Keys(ctx, buckets)
	if err != nil {
		return nil, err
	}
	between, err := suspect.Keys(ctx, buckets)
	if err != nil {
		return nil, err
	}
	last, err := right.Keys(ctx, buckets)
	if err != nil {
		return nil, err
	}
	found := unexplained(first, between)
	for _, d := range unexplained(last, between) {
		if !slices.ContainsFunc(found, func(f Difference) bool { return f.Key == d.Key }) {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b Difference) int { return cmp.Compare(a.Key, b.Key) })
	return found, nil
}

// unexplained returns the differences that no write between the heads of the two parts explains.
func unexplained(right, suspect Part) (found []Difference) {
	if right.Head.Epoch != suspect.Head.Epoch || right.Partial || suspect.Partial {
		return nil
	}
	a, b := byKey(right.Items), byKey(suspect.Items)
	for key, x := range a {
		y := b[key]
		if y != nil && *y == *x {
			continue
		}
		if !explained(x, y, right.Head.Version, suspect.Head.Version) {
			found = append(found, Difference{key, x, y})
		}
	}
	for key, y := range b {
		if a[key] == nil && !explained(nil, y, right.Head.Version, suspect.Head.Version) {
			found = append(found, Difference{key, nil, y})
		}
	}
	return found
}

// explained reports whether a write can have changed x, the entry at version atX, to y, the entry at version atY, or the
// other way round. The later of the two answers shows the last write of the key: if that is not later than the older
// answer, the older answer must be the same. A delete leaves no trace, so an absence in the later answer is explained,
// unless there was no write at all.
func explained(x, y *store.Item, atX, atY uint64) bool {
	if atX == atY {
		return false
	}
	later, earlier := x, atY
	if atY > atX {
		later, earlier = y, atX
	}
	return later == nil || later.Version > earlier
}

func byKey(items []store.Item) map[string]*store.Item {
	m := make(map[string]*store.Item, len(items))
	for i := range items {
		m[items[i].Key] = &items[i]
	}
	return m
}
