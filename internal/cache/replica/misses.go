package replica

import (
	"context"
	"errors"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"slices"
	"sync"
	"time"
)

// missQueue holds the reads that memory could not answer until a step answers them. Reads of one
// key share an answer only if all of them came before the step: a later one could get an answer
// that is older than what its client has already seen.
type missQueue struct {
	wake chan struct{} // has a token while reads wait; never closed

	mu      sync.Mutex
	closed  error                // why nobody will answer any more
	slow    map[string]time.Time // keys whose value did not come in time, and until when they are refused
	now     func() time.Time
	waiting []*miss
	pending int                // reads in waiting and asked
	asked   map[string][]*miss // keys of the step that is under way; the applier's between keys and answer
	order   []string           // of asked
}

type miss struct {
	key       string
	done      chan missed // buffered: nobody receives after abandon
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
	maxMisses   = 4096 // that wait
	maxStepKeys = 64   // that one step asks for
	maxSlow     = 64   // keys that are refused
)

// slowPause is how long a key is refused whose value did not come in time, so that a value that is too
// large for the link does not keep the others from being read.
const slowPause = 10 * time.Second

var (
	errTooManyMisses = errors.New("too many reads wait for Redis")
	errSlowValue     = errors.New("the value did not come in time a moment ago")
)

func newMissQueue() *missQueue {
	return &missQueue{wake: make(chan struct{}, 1), asked: make(map[string][]*miss), slow: make(map[string]time.Time), now: time.Now}
}

// ask waits for an answer, at most until ctx is done.
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

// abandon keeps the next steps from reading a value that nobody waits for any more.
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

// empty reports whether no read waits.
func (q *missQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) == 0 && len(q.order) == 0
}

// keys returns the keys to ask for, most at a time: those of a step that could not answer, and then of
// reads that wait. Applier only.
func (q *missQueue) keys(most int) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		m := q.waiting[0]
		if m.abandoned {
			q.pending--
			q.waiting = q.waiting[1:]
			continue
		}
		if _, ok := q.asked[m.key]; !ok {
			if len(q.order) >= most {
				break
			}
			q.order = append(q.order, m.key)
		}
		q.asked[m.key] = append(q.asked[m.key], m)
		q.waiting = q.waiting[1:]
	}
	return q.order[:min(most, len(q.order))]
}

// refuse answers the reads of key with err. With slow, the value did not come in time, and further reads are
// refused for slowPause. Applier only.
func (q *missQueue) refuse(key string, err error, slow bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending -= len(q.asked[key])
	for _, m := range q.asked[key] {
		m.done <- missed{err: err}
	}
	delete(q.asked, key)
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

// answer passes on what a step found for the keys it was asked for. Reads that the step had no room
// for go to the front of the queue: otherwise a steady stream of new reads would starve them.
// Applier only.
func (q *missQueue) answer(st *protocol.LogStep) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var again []*miss
	for i := range st.Missed {
		l := &st.Missed[i]
		if l.Skipped {
			again = append(again, q.asked[l.Key]...)
		} else {
			c, _ := changeOf(l, st.Head.Epoch) // the applier has logged it
			e := store.Entry{Epoch: st.Head.Epoch, Version: c.Version, Value: c.Value}
			q.pending -= len(q.asked[l.Key])
			for _, m := range q.asked[l.Key] {
				m.done <- missed{entry: e, present: c.Present, head: st.Head}
			}
		}
		delete(q.asked, l.Key)
	}
	q.order = slices.DeleteFunc(q.order, func(k string) bool { return q.asked[k] == nil })
	q.waiting = append(again, q.waiting...)
	if len(q.waiting) > 0 || len(q.order) > 0 {
		q.signal()
	}
}

// fail answers every read that waits with err. Applier only.
func (q *missQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.waiting {
		m.done <- missed{err: err}
	}
	for _, ms := range q.asked {
		for _, m := range ms {
			m.done <- missed{err: err}
		}
	}
	q.waiting, q.pending = nil, 0
	clear(q.asked)
	q.order = q.order[:0]
}

// close answers every read with err from now on.
func (q *missQueue) close(err error) {
	q.mu.Lock()
	q.closed = err
	q.mu.Unlock()
	q.fail(err)
}
