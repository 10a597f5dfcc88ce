package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// Errors of a follower.
var (
	// ErrGone reports a position after which Redis does not have every change: the follower needs a snapshot.
	ErrGone = errors.New("the changes after this position are gone")
	// ErrBehind reports a position that the Redis replica has not reached yet.
	ErrBehind = errors.New("the Redis replica has not reached this position yet")
)

// Log is Redis's log.
type Log interface {
	// FetchStep is one log step; see protocol.FetchStep. It blocks at most until ctx is done.
	FetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// MayLag reports whether the node may be a Redis replica, which can be behind a position.
	MayLag() bool
}

const (
	stepBytes   = 256 << 10              // size of a log step for followers, in bytes
	stepLeast   = 16 << 10               // minimum of that size, which is halved after a failure and doubled after a success
	stepTimeout = time.Second            // bound of one round trip
	stepShare   = 3                      // after a log step, the next one waits this many times as long as it took
	keptSpans   = 8                      // number of recent log steps that further followers share
	keptFor     = 2 * time.Second        // time for which they do
	failedFor   = 200 * time.Millisecond // time for which a failed log step fails those of all followers
)

// past answers positions that the window does not have, from the log. One log step runs at a time, and takes at most a
// quarter of the time, so that followers cannot overload Redis. Followers at close positions share the answers.
type past struct {
	log   Log
	turn  chan struct{} // holds a token while a log step runs or pauses
	limit int64         // size of the next log step, in bytes; guarded by turn
	steps atomic.Int64  // number of log steps so far
	now   func() time.Time

	mu       sync.Mutex // guards the rest
	recent   []keptSpan // newest last
	gone     []keptGone // newest last
	failed   error
	failedAt time.Time
}

type keptSpan struct {
	span *span
	at   time.Time
}

type keptGone struct {
	position protocol.Head // version and write id are 0 if every position of the epoch is gone
	err      error
	at       time.Time
}

func newPast(log Log) *past {
	return &past{log: log, limit: stepBytes, turn: make(chan struct{}, 1), now: time.Now}
}

// after returns a span that contains the position at. It blocks until ctx is done at most.
func (p *past) after(ctx context.Context, at protocol.Head) (*span, error) {
	if s, err := p.known(at); s != nil || err != nil {
		return s, err
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	began := time.Now()
	defer func() {
		time.AfterFunc(stepShare*time.Since(began), func() { <-p.turn })
	}()
	if s, err := p.known(at); s != nil || err != nil { // the log step of another follower, while this one waited
		began = time.Now()
		return s, err
	}
	s, err := p.fetch(ctx, at)
	p.keep(at, s, err)
	return s, err
}

// known returns a recent answer for the position at.
func (p *past) known(at protocol.Head) (*span, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for len(p.recent) > 0 && now.Sub(p.recent[0].at) > keptFor {
		p.recent = p.recent[1:]
	}
	for len(p.gone) > 0 && now.Sub(p.gone[0].at) > keptFor {
		p.gone = p.gone[1:]
	}
	for i := len(p.recent) - 1; i >= 0; i-- {
		if s := p.recent[i].span; at != s.head {
			if _, ok := s.after(at); ok {
				return s, nil
			}
		}
	}
	for _, g := range p.gone {
		if g.position == at || g.position == (protocol.Head{Epoch: at.Epoch}) {
			return nil, g.err
		}
	}
	if p.failed != nil && now.Sub(p.failedAt) < failedFor {
		return nil, p.failed
	}
	return nil, nil
}

func (p *past) keep(at protocol.Head, s *span, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.failed = nil
	switch {
	case err == nil:
		if len(p.recent) == keptSpans {
			p.recent = p.recent[1:]
		}
		p.recent = append(p.recent, keptSpan{s, now})
	case errors.Is(err, ErrGone):
		if errors.Is(err, errOtherEpoch) {
			at = protocol.Head{Epoch: at.Epoch}
		}
		if len(p.gone) == keptSpans {
			p.gone = p.gone[1:]
		}
		p.gone = append(p.gone, keptGone{at, err, now})
	case !errors.Is(err, ErrBehind) && !errors.Is(err, context.Canceled):
		p.failed, p.failedAt = err, now
	}
}

var errOtherEpoch = errors.New("another history has begun")

// fetch reads the log after the position at. A commit that is larger than a log step takes several.
func (p *past) fetch(ctx context.Context, at protocol.Head) (*span, error) {
	q := protocol.Query{Watermark: at, Limit: p.limit}
	values := stepValues{}
	for {
		st, err := p.step(ctx, q)
		if err != nil {
			p.limit = max(p.limit/2, stepLeast) // it may have been too large for the link
			return nil, err
		}
		values.add(&st)
		if len(st.Entries) == 0 && st.Part.Writes > 0 {
			q.Part = st.Part
			continue
		}
		start, err := p.judge(&st, at)
		if err != nil {
			return nil, err
		}
		p.limit = min(2*p.limit, stepBytes)
		s := &span{start: start, head: start}
		for i := range st.Entries {
			var ok bool
			if s.events, ok = values.appendEntry(s.events, st.Head.Epoch, &st.Entries[i]); !ok {
				return nil, errors.New("a log step lacks a value") // the commit changed between two parts
			}
			s.head.Version, s.head.WriteID = st.Entries[i].Version, st.Entries[i].WriteID
		}
		// A position inside a commit: the writes up to it are before the span.
		for len(s.events) > 0 && s.events[0].At.Version <= start.Version {
			s.events = s.events[1:]
		}
		return s, nil
	}
}

func (p *past) step(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	p.steps.Add(1)
	return p.log.FetchStep(ctx, q)
}

// judge checks that the entries of a log step continue the position at, without a gap, and returns at with its write id.
func (p *past) judge(st *protocol.LogStep, at protocol.Head) (protocol.Head, error) {
	gone := func(why string) error { return fmt.Errorf("%w: %s", ErrGone, why) }
	switch {
	case st.Head.Epoch != at.Epoch:
		return at, fmt.Errorf("%w: %w", ErrGone, errOtherEpoch)
	case st.Head.Version < at.Version && p.log.MayLag():
		return at, ErrBehind
	case st.Head.Version < at.Version:
		return at, gone("Redis was rolled back")
	case st.Head.Version == at.Version && at.WriteID != 0 && st.Head.WriteID != at.WriteID:
		return at, gone("Redis was rolled back")
	case st.Head.Version == at.Version:
		return st.Head, nil
	case len(st.Entries) == 0:
		return at, gone("the log has been trimmed")
	}
	before := protocol.Head{}
	for i := range st.Entries {
		e := &st.Entries[i]
		first := e.Version - uint64(e.Writes) + 1
		switch {
		case e.Writes == 0:
			return at, gone("the log has an entry that the write script did not make")
		case i == 0 && first > at.Version+1:
			return at, gone("the log has been trimmed")
		case i == 0:
			id := e.Previous
			if first <= at.Version {
				id = e.WriteID // the position is inside this commit
			}
			if at.WriteID != 0 && at.WriteID != id {
				return at, gone("Redis was rolled back")
			}
			at.WriteID = id
		case first != before.Version+1 || e.Previous != before.WriteID:
			return at, gone("the log is broken")
		}
		before.Version, before.WriteID = e.Version, e.WriteID
	}
	return at, nil
}
