package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// The digests of these entries must never change: readers of different builds are compared with each other.
func TestDigestIsStable(t *testing.T) {
	for _, tt := range []struct {
		key     string
		version uint64
		value   string
		want    uint64
	}{
		{"hello", 1, `{"id":"hello"}`, 0xcdd42edd5a44e58c},
		{"hello", 0, `{"id":"hello"}`, 0x2646388b91b25cd2},
		{"a", 1<<53 + 1, "", 0xe350599d540e1550},
	} {
		if got := EntryDigest(KeyHash([]byte(tt.key)), tt.version, Checksum(tt.value)); got != tt.want {
			t.Errorf("%s, version %d: %#016x, want %#016x", tt.key, tt.version, got, tt.want)
		}
	}
}

// digestOf returns the digest of a map, computed without a store.
func digestOf(m map[string]Change) (d uint64) {
	for key, c := range m {
		d += EntryDigest(KeyHash([]byte(key)), c.Version, Checksum(c.Value))
	}
	return d
}

// The digest is that of the entries after every batch of random sets, deletes, compactions and snapshots, and does not
// depend on the way to them. A store of checksums has the same digest.
func TestDigestFollowsEveryChange(t *testing.T) {
	for _, checksums := range []bool{false, true} {
		t.Run(fmt.Sprint("checksums=", checksums), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			s := testStore(t, 64<<20)
			s.cfg.Checksums, s.slabs.checksums = checksums, checksums
			want, version := map[string]Change{}, uint64(0)
			for round := range 200 {
				snapshot := round%20 == 19
				if snapshot {
					s.BeginSnapshot(false)
					for _, c := range want { // in another order, and with those that follow below
						if rng.IntN(3) > 0 {
							s.Put(1, []Change{c})
						} else {
							delete(want, c.Key)
						}
					}
				}
				b := NewBatch(0)
				for range 300 {
					version++
					c := Change{Key: fmt.Sprint("key", rng.IntN(2000)), Version: version * uint64(rng.IntN(2)), Present: rng.IntN(5) > 0}
					if c.Present {
						c.Value = strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(1+rng.IntN(maxSlab/8)))
					}
					b.Add(c)
				}
				s.Apply(1, b.Changes)
				for _, c := range b.Changes {
					delete(want, c.Key)
					if c.Present {
						want[c.Key] = c
					}
				}
				if snapshot {
					s.FinishSnapshot()
				}
				if got := s.Digest(); got != digestOf(want) {
					t.Fatalf("round %d: digest %016x of %d entries, want %016x", round, got, len(want), digestOf(want))
				}
				n := 0
				s.Each(func(key []byte, version, checksum uint64) {
					n++
					if c := want[string(key)]; c.Version != version || Checksum(c.Value) != checksum {
						t.Fatalf("round %d: %s has version %d in the list, want %d", round, key, version, c.Version)
					}
				})
				if n != len(want) {
					t.Fatalf("round %d: %d entries are listed, want %d", round, n, len(want))
				}
				if found := s.Scrub(1 << 40); found.Damaged > 0 || !found.Wrapped {
					t.Fatalf("round %d: the scrub of an intact store: %+v", round, found)
				}
			}
		})
	}
}

// Evicted and refused entries leave the digest.
func TestDigestOfAFullStore(t *testing.T) {
	s := testStore(t, 256<<10)
	s.BeginSnapshot(false)
	s.FinishSnapshot()
	for i := range 5000 {
		s.Apply(1, []Change{{Key: fmt.Sprint(i % 3000), Value: strings.Repeat("x", i%500), Version: uint64(i), Present: true}})
	}
	var want uint64
	s.Each(func(key []byte, version, checksum uint64) { want += EntryDigest(KeyHash(key), version, checksum) })
	if got := s.Digest(); got != want || s.Complete() {
		t.Errorf("digest %016x, the entries have %016x", got, want)
	}
}

// fill returns a complete store with small values and one with a slab of its own.
func fill(t *testing.T) *Owner {
	s := testStore(t, 16<<20)
	reload(s)
	return s
}

func reload(s *Owner) {
	s.BeginSnapshot(false)
	for i := range 100 {
		s.Put(1, []Change{{Key: fmt.Sprint("key", i), Value: fmt.Sprint("value", i), Version: uint64(i), Present: true}})
	}
	s.Put(1, []Change{{Key: "large", Value: strings.Repeat("x", 20<<10), Version: 100, Present: true}})
	s.FinishSnapshot()
}

// scrubAll scrubs the whole store in small parts.
func scrubAll(s *Owner) (all Scrubbed) {
	for !all.Wrapped {
		part := s.Scrub(1)
		all.Bytes += part.Bytes
		all.Damaged += part.Damaged
		all.Wrapped = part.Wrapped
	}
	return all
}

// The scrub finds a flipped bit in any byte of a slab: of a header, a key or a value, also of an entry that has been
// replaced. The next snapshot replaces it.
func TestScrubFindsEveryFlippedByte(t *testing.T) {
	s := fill(t)
	s.Apply(1, []Change{{Key: "key50", Value: "replaced", Version: 101, Present: true}})
	table := *s.slabs.table.Load()
	slabs := 0
	for i := range table {
		sl := table[i].Load()
		if sl == nil {
			continue
		}
		slabs++
		for at := range sl.used {
			sl.data[at] ^= 1 << (at % 8)
			if got := scrubAll(s); got.Damaged != 1 {
				t.Fatalf("a flip of byte %d of %d: %+v", at, sl.used, got)
			}
			sl.data[at] ^= 1 << (at % 8)
			if sl.own && at > 200 {
				break
			}
		}
	}
	if got := scrubAll(s); got.Damaged != 0 || slabs < 2 {
		t.Fatalf("after all flips were undone: %+v in %d slabs", got, slabs)
	}
}

// A value that was damaged does not change the digest while it stays; its replacement reveals the damage; a snapshot
// mends the digest.
func TestSnapshotMendsTheDigest(t *testing.T) {
	s := fill(t)
	want := s.Digest()
	e, _ := s.Get([]byte("key7"))
	*unsafe.StringData(e.Value) ^= 4
	if s.Digest() != want {
		t.Error("the digest has changed although nothing was put")
	}
	s.Apply(1, []Change{{Key: "key7", Value: "value7", Version: 7, Present: true}})
	if s.Digest() == want {
		t.Error("the damage did not remain in the digest when its entry left")
	}
	reload(s)
	if s.Digest() != want {
		t.Errorf("digest %016x after a snapshot, want %016x", s.Digest(), want)
	}
	if got := scrubAll(s); got.Damaged != 0 {
		t.Errorf("after a snapshot: %+v", got)
	}
}

// The scrub finds keys whose places were swapped in the index, a key that the index has lost, one whose hash was changed,
// and a bucket that reads do not get.
func TestScrubFindsDamageOfTheIndex(t *testing.T) {
	for name, damage := range map[string]func(s *Owner){
		"swapped": func(s *Owner) { damageIndex(t, s, "key1", "key2") },
		"lost":    func(s *Owner) { slotOf(s, "key3").clear() },
		"hash": func(s *Owner) {
			at := slotOf(s, "key4")
			at.hashes[at.i].Store(at.hashes[at.i].Load() ^ 1<<20)
		},
		"bucket": func(s *Owner) { s.at(bucketOf(s.hashString("key5"), s.count)).Store(nil) },
	} {
		s := fill(t)
		damage(s)
		if got := scrubAll(s); got.Damaged == 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A snapshot mends whatever the scrub finds: afterwards the digest, the counts and every post are right, and the scrub finds
// nothing. Meanwhile writes of other keys go on.
func TestSnapshotMendsAllDamage(t *testing.T) {
	damages := map[string]func(s *Owner){
		"swapped": func(s *Owner) { damageIndex(t, s, "key1", "key2") },
		"lost":    func(s *Owner) { slotOf(s, "key3").clear() },
		"hash": func(s *Owner) {
			at := slotOf(s, "key4")
			at.hashes[at.i].Store(at.hashes[at.i].Load() ^ 1<<20)
		},
		"place":  func(s *Owner) { flipRef(s, "key6", 5) },
		"slab":   func(s *Owner) { flipRef(s, "key6", 60) },
		"bucket": func(s *Owner) { s.at(bucketOf(s.hashString("key5"), s.count)).Store(nil) },
	}
	for at := range entryHeader + len("key5") + len("value5") {
		damages[fmt.Sprint("byte ", at)] = func(s *Owner) { flip(s, "key5", at) }
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			s, intact := fill(t), fill(t)
			damage(s)
			if got := scrubAll(s); got.Damaged == 0 {
				t.Fatalf("the scrub finds nothing: %+v", got)
			}
			more := []Change{{Key: "key50", Value: "changed", Version: 101, Present: true}, {Key: "key51"}}
			for _, o := range []*Owner{s, intact} {
				o.Apply(1, more)
				reload(o)
			}
			if s.Digest() != intact.Digest() {
				t.Errorf("digest %016x, want %016x", s.Digest(), intact.Digest())
			}
			if got := scrubAll(s); got.Damaged != 0 {
				t.Errorf("the scrub still finds damage: %+v", got)
			}
			if s.Entries() != intact.Entries() || s.Cost() != intact.Cost() || s.SlabBytes() != intact.SlabBytes() {
				t.Errorf("%d entries, cost %d in %d bytes; want %d, %d in %d", s.Entries(), s.Cost(), s.SlabBytes(),
					intact.Entries(), intact.Cost(), intact.SlabBytes())
			}
			for i := range 100 {
				if e, found := s.Get(fmt.Append(nil, "key", i)); found != Hit || e.Value != fmt.Sprint("value", i) {
					t.Errorf("key%d: %v %q", i, found, e.Value)
				}
			}
			balanced(t, s)
		})
	}
}

// Compaction moves an entry together with damage that the scrub has not reached yet. The scrub reports it all the same.
func TestScrubFindsDamageThatWasMoved(t *testing.T) {
	s := fill(t)
	want := s.Digest()
	sl := s.slabs.at(slotOf(s, "key5").ref())
	flip(s, "key5", entryHeader+len("key5"))
	s.alloc.endCurrent()
	s.evacuate(sl)
	if s.slabs.at(newRef(sl.index, sl.generation, 0)) != nil {
		t.Fatal("the slab is still there")
	}
	if got := scrubAll(s); got.Damaged != 1 {
		t.Errorf("after the move: %+v", got)
	}
	reload(s)
	if got := scrubAll(s); got.Damaged != 0 || s.Digest() != want {
		t.Errorf("after a snapshot: %+v, digest %016x, want %016x", got, s.Digest(), want)
	}
}

// A read of an entry whose lengths are damaged reads nothing outside its slab, and neither it nor a write panics.
func TestDamagedLengths(t *testing.T) {
	for at := 8; at < entryHeader; at++ {
		for bit := range 8 {
			s := fill(t)
			r := slotOf(s, "key99").ref()
			s.slabs.at(r).data[r.offset()+at] ^= 1 << bit
			e, found := s.Get([]byte("key99"))
			if found == Hit && len(e.Value) > len(s.slabs.at(r).data)-r.offset() {
				t.Errorf("byte %d, bit %d: a value of %d bytes", at, bit, len(e.Value))
			}
			s.Apply(1, []Change{{Key: "key99", Value: "new", Version: 200, Present: true}, {Key: "key98"}})
			if e, found := s.Get([]byte("key99")); found != Hit || e.Value != "new" {
				t.Errorf("byte %d, bit %d, after a write: %v %q", at, bit, found, e.Value)
			}
			s.Close()
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := testStore(b, 512<<20)
	const keys = 100_000
	value := strings.Repeat("x", 300)
	changes := make([]Change, 0, keys)
	for i := range keys {
		changes = append(changes, Change{Key: fmt.Sprint("post-", i), Value: value, Version: uint64(i), Present: true})
	}
	s.Apply(1, changes)
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(keys, func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	b.ResetTimer()
	for i := 0; i < b.N; i += 100 {
		at := i % keys
		s.Apply(1, changes[at:at+100])
	}
}

func BenchmarkScrub(b *testing.B) {
	s := testStore(b, 512<<20)
	value := strings.Repeat("x", 300)
	for i := range 100_000 {
		s.Put(1, []Change{{Key: fmt.Sprint("post-", i), Value: value, Version: uint64(i), Present: true}})
	}
	s.Apply(1, nil)
	b.ResetTimer()
	for range b.N {
		for done := false; !done; {
			done = s.Scrub(1 << 20).Wrapped
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/entry")
}
