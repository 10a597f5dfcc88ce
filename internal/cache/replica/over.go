package replica

import (
	"maps"
	"sync/atomic"
)

// overEpochs records epochs of histories that are over, so that their tokens, which clients keep for long, do not cost a
// request to Redis each time. It is valid while the replica's epoch is the one that Redis had at the record. Any goroutine
// may use it; a lookup takes no lock.
type overEpochs struct {
	known atomic.Pointer[epochsOver]
}

// epochsOver is immutable.
type epochsOver struct {
	in   uint64              // epoch of Redis when over was recorded
	over map[uint64]struct{} // other epochs
}

// maxOver bounds the epochs, because clients choose what they send.
const maxOver = 64

// has reports whether the history of epoch is over, for a replica whose watermark is in the epoch in.
func (o *overEpochs) has(epoch, in uint64) bool {
	known := o.known.Load()
	if known == nil || known.in != in {
		return false
	}
	_, ok := known.over[epoch]
	return ok
}

// add records that Redis was in the epoch in and not in epoch.
func (o *overEpochs) add(epoch, in uint64) {
	for {
		known := o.known.Load()
		next := &epochsOver{in: in, over: make(map[uint64]struct{}, 1)}
		if known != nil && known.in == in && len(known.over) < maxOver {
			maps.Copy(next.over, known.over)
		}
		next.over[epoch] = struct{}{}
		if o.known.CompareAndSwap(known, next) {
			return
		}
	}
}
