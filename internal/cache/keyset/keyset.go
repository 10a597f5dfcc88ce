// Package keyset holds a large set of keys in order, in two allocations.
package keyset

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"sort"
	"unsafe"
)

// Builder collects keys.
type Builder struct {
	text []byte
	keys []place
}

// place is the place of a key in a text.
type place struct {
	prefix uint64 // the first bytes in which keys differ, for comparisons without a cache miss; see Builder.Set
	at     int
}

// NewBuilder returns a builder with room for a number of keys.
func NewBuilder(keys int64) *Builder { return &Builder{keys: make([]place, 0, keys)} }

// Add adds a copy of key.
func (b *Builder) Add(key []byte) {
	b.keys = append(b.keys, place{at: len(b.text)})
	b.text = appendKey(b.text, key)
}

// Set sorts the keys and returns them, each once. The builder must not be used afterwards. Besides the text of the keys,
// which exists twice meanwhile, the builder takes 16 bytes per key.
func (b *Builder) Set() *Set {
	shared := b.sharedPrefix()
	for i := range b.keys {
		key, _ := keyAt(b.text, b.keys[i].at)
		var first [8]byte
		copy(first[:], key[shared:])
		b.keys[i].prefix = binary.BigEndian.Uint64(first[:])
	}
	slices.SortFunc(b.keys, func(x, y place) int {
		if c := cmp.Compare(x.prefix, y.prefix); c != 0 {
			return c
		}
		kx, _ := keyAt(b.text, x.at)
		ky, _ := keyAt(b.text, y.at)
		return bytes.Compare(kx[shared:], ky[shared:])
	})
	s := &Set{text: make([]byte, 0, len(b.text)), marks: make([]int, 0, len(b.keys)/markEvery+1)}
	var last []byte
	for _, p := range b.keys {
		key, _ := keyAt(b.text, p.at)
		if s.keys > 0 && bytes.Equal(key, last) {
			continue
		}
		if s.keys%markEvery == 0 {
			s.marks = append(s.marks, len(s.text))
		}
		s.text = appendKey(s.text, key)
		s.keys++
		last = key
	}
	return s
}

// sharedPrefix returns the length of the longest prefix that all keys have.
func (b *Builder) sharedPrefix() int {
	if len(b.keys) == 0 {
		return 0
	}
	first, _ := keyAt(b.text, 0)
	shared := len(first)
	for i := range b.keys {
		key, _ := keyAt(b.text, b.keys[i].at)
		n := 0
		for n < min(shared, len(key)) && key[n] == first[n] {
			n++
		}
		shared = n
	}
	return shared
}

// markEvery is the number of keys for each mark.
const markEvery = 32

// Set is an ordered set of keys. It is immutable. The zero value is empty.
type Set struct {
	text  []byte // the keys in order, each with its length before it
	marks []int  // offset of every markEvery-th key
	keys  int
}

// Len returns the number of keys.
func (s *Set) Len() int { return s.keys }

// From returns the keys from the first one that is not before start, in order. They are views.
func (s *Set) From(start string) iter.Seq[string] {
	return func(yield func(string) bool) {
		at := 0
		if i := sort.Search(len(s.marks), func(i int) bool { return s.key(s.marks[i]) >= start }); i > 0 {
			at = s.marks[i-1]
		}
		for at < len(s.text) {
			key, next := keyAt(s.text, at)
			if at = next; view(key) >= start && !yield(view(key)) {
				return
			}
		}
	}
}

// Has reports whether the set has key.
func (s *Set) Has(key string) bool {
	for k := range s.From(key) {
		return k == key
	}
	return false
}

func (s *Set) key(at int) string {
	key, _ := keyAt(s.text, at)
	return view(key)
}

func view(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }

func appendKey(dst, key []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(key))), key...)
}

// keyAt returns the key at an offset, and the offset after it.
func keyAt(text []byte, at int) (key []byte, next int) {
	n, size := binary.Uvarint(text[at:])
	next = at + size + int(n)
	return text[at+size : next : next], next
}

// Merge returns the keys of an ordered sequence and an ordered list in order, those of both once.
func Merge(keys iter.Seq[string], list []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		rest := list
		for key := range keys {
			for ; len(rest) > 0 && rest[0] <= key; rest = rest[1:] {
				if rest[0] < key && !yield(rest[0]) {
					return
				}
			}
			if !yield(key) {
				return
			}
		}
		for _, key := range rest {
			if !yield(key) {
				return
			}
		}
	}
}

// Union returns the union of two ordered lists, each key once. It changes neither, and may return the first.
func Union(list, added []string) []string {
	if len(added) == 0 {
		return list
	}
	union := make([]string, 0, len(list)+len(added))
	return slices.AppendSeq(union, Merge(slices.Values(list), added))
}
