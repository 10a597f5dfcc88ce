package store

import "testing"

// damageIndex swaps the places of two keys in the index, as a fault of memory would.
func damageIndex(t *testing.T, s *Owner, a, b string) {
	t.Helper()
	x, y := slotOf(s, a), slotOf(s, b)
	if x.block == nil || y.block == nil {
		t.Fatal("the keys are not in the index")
	}
	r := x.ref()
	x.replace(y.ref())
	y.replace(r)
}

// slotOf returns the slot of a key.
func slotOf(s *Owner, key string) slotAt {
	hash := s.hashString(key)
	at, _ := s.find(s.at(bucketOf(hash, s.count)).Load(), hash, key)
	return at
}

// flip flips a bit of a byte of the entry of a key, counted from the start of its header.
func flip(s *Owner, key string, at int) {
	r := slotOf(s, key).ref()
	s.slabs.at(r).data[r.offset()+at] ^= 1 << (at % 8)
}

// flipRef flips a bit of the place of a key in the index.
func flipRef(s *Owner, key string, bit int) {
	at := slotOf(s, key)
	at.replace(at.ref() ^ 1<<bit)
}
