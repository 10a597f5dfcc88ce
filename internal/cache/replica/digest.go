package replica

import (
	"fmt"
	"sync"

	"heavy-read-api/internal/cache/protocol"
)

// Digest is the digest of a whole data set at a head. It is a function of Redis's state at the head, so two replicas that
// are right have equal digests at equal heads, whatever messages, log steps and snapshots brought them there.
type Digest struct {
	Head  protocol.Head
	Value uint64
}

// checkpointEvery is the distance between two checkpoints, in versions. Replicas that apply several commits together
// publish different heads, but each of them publishes the first head at or after a multiple of this.
const checkpointEvery = 256

// isCheckpoint reports whether every replica publishes the head to, which is the next one after from in the log.
func isCheckpoint(from, to protocol.Head) bool {
	return from.Version/checkpointEvery != to.Version/checkpointEvery
}

// digestLog keeps the digests at recent heads, so that replicas that are asked one after the other, while writes go on,
// still have a head in common. Its memory is constant. Any goroutine may use it.
type digestLog struct {
	mu          sync.Mutex // guards both
	recent      []Digest   // at the last heads, oldest first; at a low write rate replicas publish the same ones
	checkpoints []Digest   // at the last checkpoints, oldest first
}

// keptDigests bounds each list of a digestLog. The checkpoints span 16,384 versions.
const keptDigests = 64

// add records d.
func (l *digestLog) add(d Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last protocol.Head
	if n := len(l.recent); n > 0 {
		if last = l.recent[n-1].Head; last == d.Head {
			l.recent[n-1] = d // a repair can change the value at a head
			return
		}
	}
	l.recent = appendBounded(l.recent, d)
	if isCheckpoint(last, d.Head) {
		l.checkpoints = appendBounded(l.checkpoints, d)
	}
}

func appendBounded(list []Digest, d Digest) []Digest {
	if len(list) == keptDigests {
		copy(list, list[1:])
		list = list[:keptDigests-1]
	}
	return append(list, d)
}

// reset removes all digests, because a snapshot replaces what they describe.
func (l *digestLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent, l.checkpoints = l.recent[:0], l.checkpoints[:0]
}

// list returns a copy of the digests: the checkpoints, then the recent ones, each list oldest first.
func (l *digestLog) list() []Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(append(make([]Digest, 0, len(l.checkpoints)+len(l.recent)), l.checkpoints...), l.recent...)
}

// digest returns the digest at the watermark, or false when the store does not hold exactly the state at the watermark:
// while a catch-up or a snapshot runs, while the entries of a file are not confirmed, and while entries may be missing. A
// head without an epoch or a write id does not identify a state: after a flush, a write and the loss of the epoch, Redis
// has the same head as after the flush.
func (a *applier) digest() (d Digest, ok bool) {
	switch {
	case a.watermark.Epoch == 0, a.watermark.WriteID == 0:
	case !a.synced, a.restoring, !a.loaded, a.noHistory, a.store.InSnapshot(), !a.store.Complete():
	default:
		return Digest{Head: a.watermark, Value: a.store.Digest()}, true
	}
	return d, false
}

// publishDigest adds the digest to the progress that is about to be published, so that both become visible together.
func (a *applier) publishDigest(p *progress) {
	if p.snapshot != nil {
		a.public.digests.reset()
		return
	}
	if d, ok := a.digest(); ok {
		p.digest = &d
		a.public.digests.add(d)
	}
}

// Digests returns the digests at recent heads at which the replica held the whole data set, oldest first.
func (r *Replica) Digests() []Digest { return r.public.digests.list() }

// hex returns a digest for the log.
func hex(v uint64) string { return fmt.Sprintf("%016x", v) }
