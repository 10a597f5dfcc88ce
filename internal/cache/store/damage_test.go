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
