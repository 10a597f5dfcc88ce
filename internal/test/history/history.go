// Package history records what writers and readers of a replicated cache did,
// and proves over the whole record that the promises held: P1 convergence, P2
// no step back, P3 no acknowledged write lost, P6 no false absence.
//
// A History is one shard: its writes are totally ordered by version within an
// epoch. A test records every write and any reads, then asks:
//
//	h := history.New()
//	w := h.Write(key, value)              // before the request is sent
//	w.Ack(epoch, version)                 // or Refused, or Unknown
//	r := h.Read("reader-1", key)          // before the request is sent
//	r.Value(epoch, version, value)        // or Absent, or Unavailable
//	h.Verify(t, final)
//
// The checker never flags a history that keeps the promises. What it cannot see:
//   - a step back between two epochs, whose order it does not know, and one
//     that may have a Break between its two reads;
//   - an absence on a reader of which nothing shows that it had the key: no
//     earlier value of it, no barrier, no newer value of another key;
//   - a false absence that a delete of unknown outcome could explain;
//   - the loss of a write that was invoked before the end of a Break.
package history

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// History records operations; it is safe for concurrent use. Times are taken
// inside the calls, so invoke before the request is sent and conclude after
// the answer has arrived.
type History struct {
	now func() time.Duration // since the start

	mu       sync.Mutex // guards what follows, and the outcome of every Write
	writes   []*Write
	breaks   []gap
	runAhead bool
	readers  map[string]*readerLog
}

// gap is a time in which writes may have been lost.
type gap struct{ from, to time.Duration }

type readerLog struct {
	mu       sync.Mutex // guards what follows
	name     string
	reads    []read
	barriers []barrier
}

type barrier struct {
	at             time.Duration
	epoch, version uint64
}

// read is a concluded one.
type read struct {
	key            string
	invoked        time.Duration
	returned       time.Duration
	absent         bool
	epoch, version uint64 // of a value
	hash           uint64
}

// New starts an empty history; its times count from now.
func New() *History {
	began := time.Now()
	return &History{
		now:     func() time.Duration { return time.Since(began) },
		readers: map[string]*readerLog{},
	}
}

var seed = maphash.MakeSeed()

// Hash is how the package compares values. It differs from process to process.
func Hash(value []byte) uint64 { return maphash.Bytes(seed, value) }

type outcome int

const (
	unknown outcome = iota // also a write that was never concluded
	acknowledged
	refused
)

const never = time.Duration(math.MaxInt64)

// Write is a set or delete on its way. Exactly one of its methods concludes it;
// one that is never concluded counts as Unknown.
type Write struct {
	h              *History
	key            string
	del            bool
	hash           uint64
	invoked        time.Duration
	returned       time.Duration // never, until acknowledged
	outcome        outcome
	epoch, version uint64 // if acknowledged
}

// Write records that a set of key is about to be sent.
func (h *History) Write(key string, value []byte) *Write {
	return h.begin(&Write{key: key, hash: Hash(value)})
}

// Delete records that a delete of key is about to be sent.
func (h *History) Delete(key string) *Write {
	return h.begin(&Write{key: key, del: true})
}

func (h *History) begin(w *Write) *Write {
	w.h, w.returned = h, never
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes = append(h.writes, w)
	w.invoked = h.now()
	return w
}

// Ack concludes a write that was acknowledged as this version.
func (w *Write) Ack(epoch, version uint64) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.outcome, w.epoch, w.version, w.returned = acknowledged, epoch, version, w.h.now()
}

// Refused concludes a write that was certainly not executed. A delete that
// found nothing, and so got no version, is one too.
func (w *Write) Refused() {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.outcome = refused
}

// Unknown concludes a write that may have been executed, or may be yet.
func (w *Write) Unknown() {}

// Read is a read on its way. One that is never concluded counts for nothing.
type Read struct {
	h       *History
	log     *readerLog
	key     string
	invoked time.Duration
}

// Read records that key is about to be read from a reader.
func (h *History) Read(reader, key string) Read {
	return Read{h, h.reader(reader), key, h.now()}
}

// Value concludes a read that was answered with a value. It keeps no reference
// to the bytes.
func (r Read) Value(epoch, version uint64, value []byte) {
	r.conclude(read{epoch: epoch, version: version, hash: Hash(value)})
}

// Absent concludes a read that was answered with "there is no such key".
func (r Read) Absent() { r.conclude(read{absent: true}) }

// Unavailable concludes a read that got an error, which proves nothing.
func (r Read) Unavailable() {}

func (r Read) conclude(done read) {
	done.key, done.invoked, done.returned = r.key, r.invoked, r.h.now()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.reads = append(r.log.reads, done)
}

// ReaderReached records a barrier: the reader has applied every write up to
// version. From now on it must not answer with less for any key. After a Break
// a barrier proves nothing, since the same position may be of the lost history.
func (h *History) ReaderReached(reader string, epoch, version uint64) {
	log, at := h.reader(reader), h.now()
	log.mu.Lock()
	defer log.mu.Unlock()
	log.barriers = append(log.barriers, barrier{at, epoch, version})
}

// Break runs a fault that may lose acknowledged writes (FLUSHALL, a failover to
// a replica that lags). Every write that was invoked before fault returns may be
// lost, and versions may be given out again in the same epoch. When fault
// returns, no write must be able to reach what is to be lost any more.
func (h *History) Break(fault func()) {
	// The gap is open from here on, should a check run in the middle of it.
	h.mu.Lock()
	i := len(h.breaks)
	h.breaks = append(h.breaks, gap{h.now(), never})
	h.mu.Unlock()
	fault()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breaks[i].to = h.now()
}

// KeysRunAhead tells the checker that a reader may show one key of a batch
// before another that is older. By default an answer with version V proves
// that the reader has applied everything up to V, and an absence that
// contradicts it breaks P6; after KeysRunAhead only barriers and the key's own
// earlier values prove that.
func (h *History) KeysRunAhead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runAhead = true
}

func (h *History) reader(name string) *readerLog {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := h.readers[name]
	if log == nil {
		log = &readerLog{name: name}
		h.readers[name] = log
	}
	return log
}
