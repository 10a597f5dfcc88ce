package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// Buckets is the number of parts into which Replica.Buckets divides the keys, by their hashes.
const Buckets = 4096

// Bounds of Replica.Keys.
const (
	MaxBuckets = 16   // buckets in one call
	MaxKeys    = 8192 // entries in one answer
)

// Errors of the methods that inspect a replica.
var (
	// ErrNotComparable: the replica does not hold exactly the state at one head now.
	ErrNotComparable = errors.New("the replica does not hold the whole data set at one head now")
	// ErrBusy: the last call of this kind was a moment ago.
	ErrBusy = errors.New("the replica has just done this; try again later")
)

// BucketOf returns the bucket of a key with this hash.
func BucketOf(keyHash uint64) int { return int(keyHash >> 52) }

// walk calls f for every entry, in one turn of the applier, so that all of them are of one head. It blocks until the
// running turn has ended, which may take as long as a snapshot, unless ctx is done before. Walks take at most half of the
// applier's time.
func (r *Replica) walk(ctx context.Context, f func(key []byte, version, checksum uint64)) (at protocol.Head, err error) {
	asked := r.turns.call(ctx, func(a *applier) {
		began := a.now()
		if _, ok := a.digest(); !ok {
			err = ErrNotComparable
			return
		}
		if began.Before(a.nextWalk) {
			err = ErrBusy
			return
		}
		at = a.watermark
		a.store.Each(f)
		a.nextWalk = a.now().Add(a.now().Sub(began))
	})
	if asked != nil {
		return at, fmt.Errorf("%w: %w", ErrNotComparable, asked)
	}
	return at, err
}

// Buckets returns the digest of the keys of each bucket, and their head. Updates wait until it has visited
// all entries; reads do not.
func (r *Replica) Buckets(ctx context.Context) (at protocol.Head, digests []uint64, err error) {
	digests = make([]uint64, Buckets)
	at, err = r.walk(ctx, func(key []byte, version, checksum uint64) {
		h := store.KeyHash(key)
		digests[BucketOf(h)] += store.EntryDigest(h, version, checksum)
	})
	return at, digests, err
}

// Keys returns the entries of some buckets, and their head. It costs as much as Buckets. It reports false when there are
// more than MaxKeys: then the list is not complete.
func (r *Replica) Keys(ctx context.Context, buckets []int) (at protocol.Head, items []store.Item, all bool, err error) {
	if len(buckets) > MaxBuckets {
		return at, nil, false, fmt.Errorf("%d buckets: ask for at most %d", len(buckets), MaxBuckets)
	}
	var wanted [Buckets]bool
	for _, b := range buckets {
		if b < 0 || b >= Buckets {
			return at, nil, false, fmt.Errorf("bucket %d: there are %d", b, Buckets)
		}
		wanted[b] = true
	}
	all = true
	at, err = r.walk(ctx, func(key []byte, version, checksum uint64) {
		if !wanted[BucketOf(store.KeyHash(key))] {
			return
		}
		if len(items) == MaxKeys {
			all = false
			return
		}
		items = append(items, store.Item{Key: string(key), Version: version, Checksum: checksum})
	})
	return at, items, all, err
}

// reloadPause is the minimum time between the end of a snapshot and one that Reload requests.
const reloadPause = time.Second

// Reload requests a snapshot, which replaces everything in memory, and does not wait for it. It fails with ErrBusy when
// one runs, or ended less than reloadPause ago, or a moment ago for its size: snapshots on request take at most half of
// the time. The waits that the scan rate causes do not count.
func (r *Replica) Reload(ctx context.Context) (err error) {
	asked := r.turns.call(ctx, func(a *applier) {
		if !r.mayReload(a) {
			err = ErrBusy
			return
		}
		a.requestSnapshot(snapshotAudit)
	})
	if asked != nil {
		return ErrBusy
	}
	return err
}

// mayReload reports whether the last snapshot ended long enough ago for one on request.
func (r *Replica) mayReload(a *applier) bool {
	worked := a.snapshotTook - time.Duration(r.source.waited.Load())
	return a.now().Sub(a.snapshotAt) >= max(reloadPause, worked)
}

// requestSnapshot makes the applier take a snapshot soon.
func (a *applier) requestSnapshot(reason snapshotReason) {
	a.requested = reason
	a.inbox.requestCatchUp(catchUpRepair)
}

// SetScanRate bounds the keys that a snapshot reads in a second; 0 means no bound. It also affects a running snapshot.
func (r *Replica) SetScanRate(keys int64) { r.source.scanRate.Store(keys) }
