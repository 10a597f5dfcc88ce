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

// ErrGone reports a position after which Redis does not have every change: the follower needs a snapshot.
var ErrGone = errors.New("the changes after this position are gone")

// Log is Redis's log.
type Log interface {
	// FetchStep is one log step; see protocol.FetchStep. It blocks at most until ctx is done.
	FetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// FetchNewest is FetchStep on the primary.
	FetchNewest(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// MayLag reports whether FetchStep may ask a Redis replica, which can be behind a position.
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
	longestWait = 5 * time.Second        // time for which a follower waits for log steps: meanwhile it sends no heartbeat
)

// past answers positions that the window does not have, from the log. One log step runs at a time, and takes at most a
// quarter of the time, so that followers cannot overload Redis. Followers at close positions share the answers.
type past struct {
	log   Log
	stop  <-chan struct{} // closed when the followers have to end
	turn  chan struct{}   // holds a token while a log step runs or pauses
	limit int64           // size of the next log step, in bytes; guarded by turn
	steps atomic.Int64    // number of log steps so far
	share time.Duration   // stepShare, or 0 for no pauses
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
	position protocol.Position // only the epoch is set if every position of the epoch is gone
	err      error
	at       time.Time
}

func newPast(log Log, stop <-chan struct{}) *past {
	return &past{log: log, stop: stop, limit: stepBytes, turn: make(chan struct{}, 1), share: stepShare, now: time.Now}
}

var errStopping = errors.New("the feed is stopping")

// after returns a span that contains the position at. It blocks for at most longestWait, and not after ctx is done. It does
// not begin a log step after the feed was stopped.
func (p *past) after(ctx context.Context, at protocol.Position) (*span, error) {
	if s, err := p.known(at); s != nil || err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	select {
	case p.turn <- struct{}{}:
	case <-p.stop:
		return nil, errStopping
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	began := time.Now()
	defer func() {
		if pause := p.share * time.Since(began); pause > 0 {
			time.AfterFunc(pause, func() { <-p.turn })
		} else {
			<-p.turn
		}
	}()
	if s, err := p.known(at); s != nil || err != nil { // the log step of another follower, while this one waited
		began = time.Now()
		return s, err
	}
	s, err := p.fetch(ctx, at, p.log.FetchStep)
	if errors.Is(err, ErrGone) && p.log.MayLag() {
		// The Redis replica may not have reached the position, or its history, yet: only the primary shows that it is gone.
		s, err = p.fetch(ctx, at, p.log.FetchNewest)
	}
	if ctx.Err() == nil { // otherwise the time of this follower alone is over
		p.keep(at, s, err)
	}
	return s, err
}

// known returns a recent answer for the position at.
func (p *past) known(at protocol.Position) (*span, error) {
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
		if s := p.recent[i].span; at.Head != s.head {
			if _, ok := s.after(at); ok {
				return s, nil
			}
		}
	}
	for _, g := range p.gone {
		if g.position == at || g.position == everywhere(at.Epoch) {
			return nil, g.err
		}
	}
	if p.failed != nil && now.Sub(p.failedAt) < failedFor {
		return nil, p.failed
	}
	return nil, nil
}

func (p *past) keep(at protocol.Position, s *span, err error) {
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
			at = everywhere(at.Epoch)
		}
		if len(p.gone) == keptSpans {
			p.gone = p.gone[1:]
		}
		p.gone = append(p.gone, keptGone{at, err, now})
	default:
		p.failed, p.failedAt = err, now
	}
}

// everywhere stands for every position of an epoch.
func everywhere(epoch uint64) protocol.Position {
	return protocol.Position{Head: protocol.Head{Epoch: epoch}}
}

var errOtherEpoch = errors.New("another history has begun")

// fetch reads the log after the position at with step. A commit that is larger than a log step takes several.
func (p *past) fetch(ctx context.Context, at protocol.Position, step logStep) (*span, error) {
	q := protocol.Query{Watermark: at.Head, Ahead: at.Ahead, Limit: p.limit}
	var made steps
	for {
		st, err := p.bounded(ctx, q, step)
		if err != nil {
			p.limit = max(p.limit/2, stepLeast) // it may have been too large for the link
			return nil, err
		}
		if q.Part.Writes == 0 {
			err = judgeHead(&st, at)
		} else if st.Head.Epoch != q.Ahead.Epoch || st.Ahead != q.Ahead.WriteID {
			err = errors.New("the log was rolled back between two parts of a commit")
		}
		if err != nil {
			return nil, err
		}
		made.add(&st)
		if len(st.Entries) == 0 && st.Part.Writes > 0 && st.Head.WriteID != 0 {
			q.Part, q.Ahead = st.Part, st.Head
			continue
		}
		start, err := judge(&st, at.Head)
		if err != nil {
			return nil, err
		}
		p.limit = min(2*p.limit, stepBytes)
		if !made.entries(st.Entries) {
			return nil, errors.New("a log step lacks a value") // the commit changed between two parts
		}
		s := &span{start: start, head: start, events: made.events, also: []protocol.Head{at.Ahead}}
		if n := len(st.Entries); n > 0 {
			s.head.Version, s.head.WriteID = st.Entries[n-1].Version, st.Entries[n-1].WriteID
		}
		s.ahead = pass(at, s.head, made.ahead).Ahead
		// A position inside a commit: the writes up to it are before the span.
		for len(s.events) > 0 && s.events[0].At.Version <= start.Version {
			s.events = s.events[1:]
		}
		return s, nil
	}
}

// logStep is FetchStep or FetchNewest of a Log.
type logStep func(context.Context, protocol.Query) (protocol.LogStep, error)

func (p *past) bounded(ctx context.Context, q protocol.Query, step logStep) (protocol.LogStep, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	p.steps.Add(1)
	return step(ctx, q)
}

func gone(why string) error { return fmt.Errorf("%w: %s", ErrGone, why) }

// judgeHead checks that the history of a log step has the position at and what that is behind.
func judgeHead(st *protocol.LogStep, at protocol.Position) error {
	newest := max(at.Version, at.Ahead.Version)
	switch {
	case st.Head.Epoch != at.Epoch:
		return fmt.Errorf("%w: %w", ErrGone, errOtherEpoch)
	case st.Head.Version < newest:
		return gone("Redis was rolled back")
	case at.Behind() && (st.Ahead != at.Ahead.WriteID || st.Ahead == 0):
		return gone("Redis was rolled back, or the log has been trimmed")
	}
	return nil
}

// judge checks that the entries of a log step continue a history at a point, without a gap, and returns the point with its
// write id.
func judge(st *protocol.LogStep, at protocol.Head) (protocol.Head, error) {
	switch {
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
