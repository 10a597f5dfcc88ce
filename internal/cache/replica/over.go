package replica

import (
	"maps"
	"sync/atomic"
)

// overEpochs remembers epochs that Redis was seen not to be in: tokens of histories that are over, which
// clients keep for long, need not ask Redis each time. It holds as long as the replica stays in the epoch
// that Redis was in. Any goroutine may use it; looking up takes no lock.
type overEpochs struct {
	known atomic.Pointer[epochsOver]
}

// epochsOver is immutable.
type epochsOver struct {
	in   uint64              // epoch that Redis was in
	over map[uint64]struct{} // epochs that it was not in
}

// maxOver bounds the epochs: clients choose what they send.
const maxOver = 64

// has reports whether epoch is over, for a replica whose watermark is in that epoch.
func (o *overEpochs) has(epoch, in uint64) bool {
	known := o.known.Load()
	if known == nil || known.in != in {
		return false
	}
	_, ok := known.over[epoch]
	return ok
}

// add notes that Redis was in one epoch and not in the other.
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
