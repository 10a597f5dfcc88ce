package replica

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/keyset"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// keyList is the keys of the store in order: every key that is present at a position, and others that have been deleted.
type keyList struct {
	snapshot uint64 // number of the snapshot to whose entries it belongs
	at       protocol.Position
	keys     *keyset.Set // as a walk over the store found them
	added    []string    // in order: keys that have been written since and are not in keys; never changed
}

// from returns the keys from the first one that is not before start, in order.
func (l *keyList) from(start string) iter.Seq[string] {
	i, _ := slices.BinarySearch(l.added, start)
	return keyset.Merge(l.keys.From(start), l.added[i:])
}

// keyLists has the key list, which all clients that page through the posts share. The store has no order, so the first of
// them has its keys sorted, by a goroutine of their own that blocks neither reads nor updates. The list is brought up
// to date by the events of the feed when a page is read, and freed when none has been read for listIdle. So neither reads
// nor updates pay for it.
type keyLists struct {
	store *store.Store
	feed  *feed.Feed

	mu       sync.Mutex  // guards the rest
	list     *keyList    // nil while there is none
	sorting  *sorting    // running sort; nil while none runs
	idle     *time.Timer // frees the list
	idleTime time.Duration
}

// sorting is a sort of the keys.
type sorting struct {
	done chan struct{} // closed when it has ended
	err  error         // set before done is closed: errDamaged, or nil
}

// listIdle is the time for which the key list is kept after the last page.
const listIdle = time.Minute

// addedFloor is the number of keys that may be added to any list before it is sorted again.
const addedFloor = 4096

func newKeyLists(s *store.Store, f *feed.Feed) *keyLists {
	return &keyLists{store: s, feed: f, idleTime: listIdle}
}

// current returns the list at the end of the feed. It blocks while the keys are being sorted, until ctx is done at most. It
// fails with errDamaged if an entry cannot be listed.
func (l *keyLists) current(ctx context.Context) (keyList, error) {
	for {
		list, sort := l.update()
		if list != nil {
			return *list, nil
		}
		select {
		case <-sort.done:
		case <-ctx.Done():
			return keyList{}, ErrSorting
		}
		if sort.err != nil {
			return keyList{}, sort.err
		}
	}
}

// update returns the list at the end of the feed, or, if there is none yet, the running sort of the keys.
func (l *keyLists) update() (*keyList, *sorting) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list != nil && !l.list.follow(l.store, l.feed) {
		l.list = nil
	}
	if l.sorting == nil && (l.list == nil || l.list.worn(l.store.Entries())) {
		l.sorting = &sorting{done: make(chan struct{})}
		go l.sort()
	}
	if l.list == nil {
		return nil, l.sorting
	}
	l.keep()
	list := *l.list
	return &list, nil
}

// keep defers the end of the list by the idle time. The caller holds mu.
func (l *keyLists) keep() {
	if l.idle == nil {
		l.idle = time.AfterFunc(l.idleTime, l.free)
	}
	l.idle.Reset(l.idleTime)
}

func (l *keyLists) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
}

// follow brings the list to the end of the feed. It returns false if that is impossible.
func (l *keyList) follow(s *store.Store, f *feed.Feed) bool {
	if l.snapshot != s.Snapshot() {
		return false
	}
	written, at, ok := f.Written(l.at)
	if !ok {
		return false
	}
	var added []string
	for _, key := range written {
		if !l.keys.Has(key) {
			added = append(added, strings.Clone(key)) // the key of an event keeps its value alive
		}
	}
	slices.Sort(added)
	l.added, l.at = keyset.Union(l.added, slices.Compact(added)), at
	return true
}

// worn reports whether so many keys have been added or deleted that the keys should be sorted again.
func (l *keyList) worn(entries int64) bool {
	keys, added := int64(l.keys.Len()), int64(len(l.added))
	return added > keys/4+addedFloor || keys+added > entries*5/4+addedFloor
}

// sort makes a list of the keys in the store.
func (l *keyLists) sort() {
	list, err := sortedKeys(l.store, l.feed)
	l.mu.Lock()
	defer l.mu.Unlock()
	if list != nil {
		l.list = list
		l.keep() // the clients that have waited may have left
	}
	l.sorting.err = err
	close(l.sorting.done)
	l.sorting = nil
}

// sortedKeys returns a list of the keys in the store, or nil if some may be missing. The walk visits every key that is
// present all the time, and the feed has those that are written meanwhile. It fails with errDamaged if an entry cannot be
// read: no page may lack its post.
func sortedKeys(s *store.Store, f *feed.Feed) (*keyList, error) {
	list := &keyList{snapshot: s.Snapshot(), at: f.End()}
	count, index := s.Buckets()
	keys := keyset.NewBuilder(s.Entries())
	for n := 0; n < count; n++ {
		whole := s.Visit(n, func(key []byte, _ store.Entry) bool {
			keys.Add(key)
			return true
		})
		var now uint64
		if count, now = s.Buckets(); now != index {
			return nil, nil
		}
		if !whole {
			return nil, errDamaged
		}
	}
	list.keys = keys.Set()
	if list.snapshot == 0 || list.snapshot != s.Snapshot() {
		return nil, nil
	}
	return list, nil
}
