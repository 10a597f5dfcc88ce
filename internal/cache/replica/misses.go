package replica

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// missQueue holds the reads that memory could not answer until a log step answers them. Reads of one key share an
// answer only if all of them were queued before the log step: a later one could get an answer that is older than what
// its client has already received. These methods are for reads; the applier uses a missOwner.
type missQueue struct {
	wake chan struct{} // has a token while reads wait; never closed
	now  func() time.Time

	mu        sync.Mutex           // guards all fields below
	closed    error                // error of every read after close; nil before
	slow      map[string]time.Time // keys whose value did not arrive in time; until this time their reads are refused
	waiting   []*miss
	pending   int                // number of reads in waiting and requested
	requested map[string][]*miss // reads of the keys in the running log step
	order     []string           // keys of requested
}

// miss is a read that waits.
type miss struct {
	key       string
	done      chan missed // buffered, because after abandon nothing receives
	abandoned bool        // guarded by missQueue.mu
}

// missed is the answer to a miss: the state of the key at head, or an error.
type missed struct {
	entry   store.Entry
	present bool
	head    protocol.Head
	err     error
}

// Bounds of the queue.
const (
	maxMisses   = 4096 // number of waiting reads
	maxStepKeys = 64   // number of missed keys in one log step
	maxSlow     = 64   // number of refused keys
)

// slowPause is the time for which a key is refused after its value did not arrive in time, so that a value that is too
// large for the link does not block the reads of other keys.
const slowPause = 10 * time.Second

var (
	errTooManyMisses = errors.New("too many reads are waiting for Redis")
	errSlowValue     = errors.New("the value did not arrive in time a moment ago")
)

func newMissQueue() *missQueue {
	return &missQueue{wake: make(chan struct{}, 1), requested: make(map[string][]*miss), slow: make(map[string]time.Time), now: time.Now}
}

// ask returns the answer of the next log step. It blocks at most until ctx is done.
func (q *missQueue) ask(ctx context.Context, key string) missed {
	m := &miss{key: key, done: make(chan missed, 1)}
	if err := q.enqueue(m); err != nil {
		return missed{err: err}
	}
	select {
	case a := <-m.done:
		return a
	case <-ctx.Done():
		q.abandon(m)
		return missed{err: ctx.Err()}
	}
}

// abandon keeps later log steps from reading a value that no read waits for.
func (q *missQueue) abandon(m *miss) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.abandoned = true
}

func (q *missQueue) enqueue(m *miss) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed != nil:
		return q.closed
	case q.pending >= maxMisses:
		return errTooManyMisses
	}
	if until, slow := q.slow[m.key]; slow {
		if q.now().Before(until) {
			return errSlowValue
		}
		delete(q.slow, m.key)
	}
	q.pending++
	q.waiting = append(q.waiting, m)
	q.signal()
	return nil
}

func (q *missQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// missOwner is the applier's side of a missQueue.
type missOwner struct{ *missQueue }

// empty reports whether no read waits.
func (q missOwner) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) == 0 && len(q.order) == 0
}

// keys returns up to most keys for a log step: first those of an earlier log step that could not answer, then those of
// waiting reads.
func (q missOwner) keys(most int) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		m := q.waiting[0]
		if m.abandoned {
			q.pending--
			q.waiting = q.waiting[1:]
			continue
		}
		if _, ok := q.requested[m.key]; !ok {
			if len(q.order) >= most {
				break
			}
			q.order = append(q.order, m.key)
		}
		q.requested[m.key] = append(q.requested[m.key], m)
		q.waiting = q.waiting[1:]
	}
	return q.order[:min(most, len(q.order))]
}

// refuse fails the reads of key with err. slow means that the value did not arrive in time: then further reads of key
// are refused for slowPause.
func (q missOwner) refuse(key string, err error, slow bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending -= len(q.requested[key])
	for _, m := range q.requested[key] {
		m.done <- missed{err: err}
	}
	delete(q.requested, key)
	q.order = slices.DeleteFunc(q.order, func(k string) bool { return k == key })
	if slow {
		if len(q.slow) >= maxSlow {
			clear(q.slow)
		}
		q.slow[key] = q.now().Add(slowPause)
	}
	if len(q.waiting) > 0 || len(q.order) > 0 {
		q.signal()
	}
}

// answer answers the reads of the keys of a log step. Reads of skipped keys go to the front of the queue: otherwise a
// steady stream of new reads would starve them.
func (q missOwner) answer(st *protocol.LogStep) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var again []*miss
	for i := range st.Missed {
		v := &st.Missed[i]
		if v.Skipped {
			again = append(again, q.requested[v.Key]...)
		} else {
			c, _ := changeOf(v, st.Head.Epoch) // the applier has logged the error
			e := store.Entry{Epoch: st.Head.Epoch, Version: c.Version, Value: c.Value}
			q.pending -= len(q.requested[v.Key])
			for _, m := range q.requested[v.Key] {
				m.done <- missed{entry: e, present: c.Present, head: st.Head}
			}
		}
		delete(q.requested, v.Key)
	}
	q.order = slices.DeleteFunc(q.order, func(k string) bool { return q.requested[k] == nil })
	q.waiting = append(again, q.waiting...)
	if len(q.waiting) > 0 || len(q.order) > 0 {
		q.signal()
	}
}

// fail fails every waiting read with err.
func (q missOwner) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.waiting {
		m.done <- missed{err: err}
	}
	for _, ms := range q.requested {
		for _, m := range ms {
			m.done <- missed{err: err}
		}
	}
	q.waiting, q.pending = nil, 0
	clear(q.requested)
	q.order = q.order[:0]
}

// close fails every read with err from now on.
func (q missOwner) close(err error) {
	q.mu.Lock()
	q.closed = err
	q.mu.Unlock()
	q.fail(err)
}
