// Package history records the operations of writers and readers of a replicated cache and checks the whole
// record for violations of the promises: P1 convergence, P2 no step back, P3 no loss of acknowledged writes,
// P6 no false absence.
//
// A History covers one shard, whose writes are totally ordered by version within an epoch. A test records
// every write and any number of reads, then verifies:
//
//	h := history.New()
//	w := h.Write(key, value)              // before the request is sent
//	w.Ack(epoch, version)                 // or Refused, or Unknown
//	r := h.Read("reader-1", key)          // before the request is sent
//	r.Value(epoch, version, value)        // or Absent, or Unavailable
//	h.Verify(t, final)
//
// The checker reports no false violations. It cannot detect:
//   - a step back between two epochs, because their order is unknown, or between two reads with a possible
//     Break in between;
//   - a false absence on a reader without evidence that it had the key: an earlier value of the key, a
//     barrier, or a newer value of another key;
//   - a false absence that a delete of unknown outcome could explain;
//   - the loss of a write that was invoked before the end of a Break.
package history

import (
	"hash/maphash"
	"math"
	"sync"
	"time"
)

// History records operations. It is safe for concurrent use. It takes the times inside the calls, so call
// Write, Delete and Read before sending the request, and conclude the operation after the response arrived.
type History struct {
	now func() time.Duration // time since the start

	mu       sync.Mutex // guards the fields below and the outcome of every Write
	writes   []*Write
	breaks   []gap
	runAhead bool
	readers  map[string]*readerLog
}

// gap is a period in which writes may have been lost.
type gap struct{ from, to time.Duration }

type readerLog struct {
	mu       sync.Mutex // guards the fields below
	name     string
	reads    []read
	barriers []barrier
}

type barrier struct {
	at             time.Duration
	epoch, version uint64
}

// read is a concluded read.
type read struct {
	key            string
	invoked        time.Duration
	returned       time.Duration
	absent         bool
	epoch, version uint64 // version of the value; unset if absent
	hash           uint64 // hash of the value; unset if absent
}

// New returns an empty history. Its times are relative to this call.
func New() *History {
	began := time.Now()
	return &History{
		now:     func() time.Duration { return time.Since(began) },
		readers: map[string]*readerLog{},
	}
}

var seed = maphash.MakeSeed()

// hash is how the package compares values. It differs from process to process.
func hash(value []byte) uint64 { return maphash.Bytes(seed, value) }

type outcome int

const (
	unknown outcome = iota // includes writes that are never concluded
	acknowledged
	refused
)

const never = time.Duration(math.MaxInt64)

// Write is a set or delete in flight. Call exactly one of its methods to conclude it. A write that is never
// concluded counts as Unknown.
type Write struct {
	h              *History
	key            string
	del            bool
	hash           uint64
	invoked        time.Duration
	returned       time.Duration // never unless acknowledged
	outcome        outcome
	epoch, version uint64 // set if acknowledged
}

// Write records that a set of key is about to be sent.
func (h *History) Write(key string, value []byte) *Write {
	return h.begin(&Write{key: key, hash: hash(value)})
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

// Ack concludes a write that was acknowledged with this version.
func (w *Write) Ack(epoch, version uint64) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.outcome, w.epoch, w.version, w.returned = acknowledged, epoch, version, w.h.now()
}

// Refused concludes a write that was certainly not executed. Use it also for a delete of an absent key,
// which gets no version.
func (w *Write) Refused() {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.outcome = refused
}

// Unknown concludes a write that may have been executed or may still be.
func (w *Write) Unknown() {}

// Read is a read in flight. A read that is never concluded is ignored.
type Read struct {
	h       *History
	log     *readerLog
	key     string
	invoked time.Duration
}

// Read records that a read of key is about to be sent to a reader.
func (h *History) Read(reader, key string) Read {
	return Read{h, h.reader(reader), key, h.now()}
}

// Value concludes a read that returned a value. It does not keep value.
func (r Read) Value(epoch, version uint64, value []byte) {
	r.conclude(read{epoch: epoch, version: version, hash: hash(value)})
}

// Absent concludes a read that returned that the key does not exist.
func (r Read) Absent() { r.conclude(read{absent: true}) }

// Unavailable concludes a read that failed. The checker ignores it.
func (r Read) Unavailable() {}

func (r Read) conclude(done read) {
	done.key, done.invoked, done.returned = r.key, r.invoked, r.h.now()
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.reads = append(r.log.reads, done)
}

// ReaderReached records a barrier: the reader has applied every write up to version, so from now on it must
// not return anything older for any key. The checker ignores a barrier after a Break, because the version may
// belong to the lost history.
func (h *History) ReaderReached(reader string, epoch, version uint64) {
	log, at := h.reader(reader), h.now()
	log.mu.Lock()
	defer log.mu.Unlock()
	log.barriers = append(log.barriers, barrier{at, epoch, version})
}

// Break runs a fault that may lose acknowledged writes, such as FLUSHALL or a failover to a lagging Redis
// replica. The checker then accepts the loss of every write invoked before fault returns, and the reuse of
// versions within the epoch. When fault returns, writes must not reach the old primary any more.
func (h *History) Break(fault func()) {
	// Record an open gap first, in case a check runs during the fault.
	h.mu.Lock()
	i := len(h.breaks)
	h.breaks = append(h.breaks, gap{h.now(), never})
	h.mu.Unlock()
	fault()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breaks[i].to = h.now()
}

// KeysRunAhead declares that a reader may apply the writes of a batch in any order. By default a response
// with version V proves that the reader has applied every write up to V, and an absence that contradicts it
// violates P6. After KeysRunAhead only barriers and earlier values of the same key prove that.
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
