package audit

import (
	"slices"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
)

// Copy is one copy of the data set: a reader's, or that of Redis.
type Copy struct {
	Name    string
	Digests []replica.Digest // at recent heads; empty if the copy cannot be compared
}

// Result is the result of a comparison.
type Result struct {
	Head     protocol.Head // newest head that the largest number of copies has
	Compared []string      // copies with a digest at Head
	Apart    []string      // copies with digests, none of them at Head
	// Differ has a pair of names for each two copies that have different digests at one head, wherever that is.
	Differ [][2]string
}

// Identical reports whether at least two copies were compared, and none differ.
func (r *Result) Identical() bool { return len(r.Differ) == 0 && len(r.Compared) >= 2 }

// Differs reports whether a and b have different digests at a head.
func (r *Result) Differs(a, b string) bool {
	return slices.Contains(r.Differ, [2]string{a, b}) || slices.Contains(r.Differ, [2]string{b, a})
}

// at returns the digest of c at a head.
func (c *Copy) at(h protocol.Head) (value uint64, ok bool) {
	for _, d := range slices.Backward(c.Digests) {
		if d.Head == h {
			return d.Value, true
		}
	}
	return 0, false
}

// Compare compares copies. Digests are only ever compared at equal heads, write id included, so copies that are at
// different points of the history, or in different histories, never count as different.
func Compare(copies []Copy) (r Result) {
	most := 1
	for i := range copies {
		for _, d := range copies[i].Digests {
			n := 0
			for j := range copies {
				if _, ok := copies[j].at(d.Head); ok {
					n++
				}
			}
			if n > most || n == most && n > 1 && d.Head.Version > r.Head.Version {
				most, r.Head = n, d.Head
			}
		}
	}
	for i := range copies {
		switch _, ok := copies[i].at(r.Head); {
		case ok && most > 1:
			r.Compared = append(r.Compared, copies[i].Name)
		case len(copies[i].Digests) > 0:
			r.Apart = append(r.Apart, copies[i].Name)
		}
		for j := range i {
			if differ(&copies[j], &copies[i]) {
				r.Differ = append(r.Differ, [2]string{copies[j].Name, copies[i].Name})
			}
		}
	}
	return r
}

// differ compares two copies at the newest head that both have: an older difference may have been mended since.
func differ(a, b *Copy) bool {
	var newest *replica.Digest
	for i := range a.Digests {
		d := &a.Digests[i]
		if _, ok := b.at(d.Head); ok && (newest == nil || d.Head.Version >= newest.Head.Version) {
			newest = d
		}
	}
	if newest == nil {
		return false
	}
	value, _ := b.at(newest.Head)
	return value != newest.Value
}
