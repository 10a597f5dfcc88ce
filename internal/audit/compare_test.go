package audit

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
)

func at(epoch, version uint64) protocol.Head {
	return protocol.Head{Epoch: epoch, Version: version, WriteID: version * 7}
}

func digests(all ...uint64) (list []replica.Digest) { // pairs of a version and a value
	for i := 0; i < len(all); i += 2 {
		list = append(list, replica.Digest{Head: at(1, all[i]), Value: all[i+1]})
	}
	return list
}

func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		name     string
		copies   []Copy
		version  uint64
		compared int
		apart    int
		differ   int
	}{
		{"nothing", nil, 0, 0, 0, 0},
		{"one copy", []Copy{{"a", digests(5, 1)}}, 0, 0, 1, 0},
		{"no head in common", []Copy{{"a", digests(5, 1)}, {"b", digests(6, 2)}}, 0, 0, 2, 0},
		{"the newest common head", []Copy{{"a", digests(5, 1, 6, 2, 7, 3)}, {"b", digests(5, 1, 6, 2)}, {"c", digests(6, 2, 8, 4)}}, 6, 3, 0, 0},
		{"one is behind", []Copy{{"a", digests(6, 2)}, {"b", digests(6, 2)}, {"c", digests(3, 9)}}, 6, 2, 1, 0},
		{"one differs", []Copy{{"a", digests(6, 2)}, {"b", digests(6, 2)}, {"c", digests(6, 3)}}, 6, 3, 0, 2},
		{"two differ at another head than the rest", []Copy{{"a", digests(6, 2)}, {"b", digests(6, 2)}, {"c", digests(4, 1)}, {"d", digests(4, 2)}}, 6, 2, 2, 1},
		{"an old difference that was mended", []Copy{{"a", digests(5, 1, 6, 2)}, {"b", digests(5, 9, 6, 2)}}, 6, 2, 0, 0},
		{"a copy that cannot be compared", []Copy{{"a", digests(6, 2)}, {"b", nil}, {"c", digests(6, 2)}}, 6, 2, 0, 0},
	} {
		r := Compare(tt.copies)
		if r.Head.Version != tt.version || len(r.Compared) != tt.compared || len(r.Apart) != tt.apart || len(r.Differ) != tt.differ {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	// Equal versions of different histories are not compared.
	for _, other := range []protocol.Head{at(2, 6), {Epoch: 1, Version: 6, WriteID: 1}} {
		r := Compare([]Copy{{"a", digests(6, 2)}, {"b", []replica.Digest{{Head: other, Value: 3}}}})
		if len(r.Differ) > 0 || len(r.Compared) > 0 || len(r.Apart) != 2 {
			t.Errorf("%+v and %+v: %+v", at(1, 6), other, r)
		}
	}
}

// state is a data set at a version, for fake holders.
type state map[string]store.Item

// holder answers from a list of states, a later one for each answer: writes go on between the questions.
type holder struct {
	history *[]state
	now     *int
	broken  func(state) // changes what the holder has
}

func (h holder) view() (state, protocol.Head) {
	*h.now = min(*h.now+1, len(*h.history)-1)
	s := maps.Clone((*h.history)[*h.now])
	h.broken(s)
	return s, at(1, uint64(*h.now))
}

func (h holder) Buckets(context.Context) (Part, error) {
	s, head := h.view()
	p := Part{Head: head, Buckets: make([]uint64, replica.Buckets)}
	for key, i := range s {
		hash := store.KeyHash([]byte(key))
		p.Buckets[replica.BucketOf(hash)] += store.EntryDigest(hash, i.Version, i.Checksum)
	}
	return p, nil
}

func (h holder) Keys(_ context.Context, buckets []int) (Part, error) {
	s, head := h.view()
	p := Part{Head: head}
	for key, i := range s {
		if slices.Contains(buckets, replica.BucketOf(store.KeyHash([]byte(key)))) {
			p.Items = append(p.Items, i)
		}
	}
	return p, nil
}

// Locate names exactly the keys that are wrong, while sets and deletes go on.
func TestLocate(t *testing.T) {
	const keys = 1000
	for name, breaks := range map[string]struct {
		do   func(state)
		want []string
	}{
		"nothing": {func(state) {}, nil},
		"a value": {func(s state) {
			i := s["cold5"]
			i.Checksum++
			s["cold5"] = i
		}, []string{"cold5"}},
		"two values": {func(s state) {
			a, b := s["cold1"], s["cold2"]
			a.Checksum, b.Checksum = b.Checksum, a.Checksum
			s["cold1"], s["cold2"] = a, b
		}, []string{"cold1", "cold2"}},
		"a lost key":     {func(s state) { delete(s, "cold7") }, []string{"cold7"}},
		"an extra key":   {func(s state) { s["extra"] = store.Item{Key: "extra", Version: 1} }, []string{"extra"}},
		"an old version": {func(s state) { s["cold9"] = store.Item{Key: "cold9", Version: 1, Checksum: 7} }, []string{"cold9"}},
	} {
		for _, writes := range []int{0, 20} { // between two answers
			for seed := range uint64(4) {
				rng := rand.New(rand.NewPCG(seed, 1))
				s := state{}
				var history []state
				for i := range keys {
					key := fmt.Sprint("cold", i)
					s[key] = store.Item{Key: key, Version: 0, Checksum: rng.Uint64()}
				}
				version := uint64(0)
				for range 60 {
					version++ // the version of a state is its number; all writes of a step have it
					for range writes {
						key := fmt.Sprint("hot", rng.IntN(500))
						if rng.IntN(3) == 0 {
							delete(s, key)
						} else {
							s[key] = store.Item{Key: key, Version: version - 1, Checksum: rng.Uint64()}
						}
					}
					history = append(history, maps.Clone(s))
				}
				now := 2
				right := holder{&history, &now, func(state) {}}
				suspect := holder{&history, &now, breaks.do}
				found, err := Locate(t.Context(), right, suspect)
				var got []string
				for _, d := range found {
					got = append(got, d.Key)
				}
				if err != nil || !slices.Equal(got, breaks.want) {
					t.Fatalf("%s, %d writes at a time, seed %d: found %v (%v), want %v", name, writes, seed, found, err, breaks.want)
				}
			}
		}
	}
}
