package feed

import (
	"context"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// Feed is the newest changes of a replica. Only the applier calls Append, AppendStep and Restart; any goroutine may call
// the other methods.
type Feed struct {
	window window
	past   *past
	pump   pump

	stop     sync.Once
	stopping chan struct{} // closed by Stop
}

// New returns a feed that keeps at most windowBytes of events in memory and reads older ones from log.
func New(windowBytes int64, log Log) *Feed {
	stopping := make(chan struct{})
	return &Feed{window: window{most: windowBytes}, past: newPast(log, stopping), pump: newPump(), stopping: stopping}
}

// SetClock replaces the clock, for tests. Log steps do not pause any more, because pauses are of real time. Call it before the
// first follower.
func (f *Feed) SetClock(now func() time.Time) { f.past.now, f.past.share = now, 0 }

// Run wakes the followers of new events until ctx is done.
func (f *Feed) Run(ctx context.Context) { f.pump.run(ctx) }

// Stop makes every follower end: Stopping is closed, now and later.
func (f *Feed) Stop() { f.stop.Do(func() { close(f.stopping) }) }

// Stopping returns a channel that Stop closes.
func (f *Feed) Stopping() <-chan struct{} { return f.stopping }

// Append adds the events of the commits between two heads of the replica, which has applied them.
func (f *Feed) Append(from protocol.Head, events []Event, to protocol.Head) {
	f.window.append(from, events, to, protocol.Head{}, protocol.Head{})
	f.pump.signal()
}

// AppendStep adds the events of a log step that has brought the replica from one head to another. If they are not whole,
// because a commit came in parts, the window begins anew.
func (f *Feed) AppendStep(from protocol.Head, st *protocol.LogStep, to protocol.Head) {
	var s steps
	if len(st.Entries) > 0 {
		s.add(st)
	}
	if !s.entries(st.Entries) {
		f.Restart(to, st.Head)
		return
	}
	f.window.append(from, s.events, to, s.ahead, st.Head)
	f.pump.signal()
}

// Restart begins the window anew at a head, unless it ends there. The replica may hold values of writes up to ahead.
func (f *Feed) Restart(at, ahead protocol.Head) {
	f.window.restart(at, ahead)
	f.pump.signal()
}

// End returns the position after the newest event.
func (f *Feed) End() protocol.Position { return f.window.endNow() }

// Has reports whether the window shows that h is a point of the history of the replica. Without a write id, only the end
// before the first write is one.
func (f *Feed) Has(h protocol.Head) bool { return f.window.has(h) }

// WindowBytes returns the memory of the events that are kept, in bytes.
func (f *Feed) WindowBytes() int64 { return f.window.held() }

// LogSteps returns the number of log steps that followers have needed.
func (f *Feed) LogSteps() int64 { return f.past.steps.Load() }

// Follower is the place of one client in the feed. One goroutine uses it.
type Follower struct {
	feed    *Feed
	wake    chan struct{} // has a token when there may be events; never closed
	index   int           // index in the pump
	at      protocol.Position
	checked time.Time // time of the last log step that had no events after at
}

// checkPause is the minimum time between two log steps for a follower that is ahead of the window.
const checkPause = time.Second

// Follow returns a follower at a position. The caller closes it.
func (f *Feed) Follow(at protocol.Position) *Follower {
	fo := &Follower{feed: f, wake: make(chan struct{}, 1), at: at}
	f.pump.add(fo)
	return fo
}

// Close removes the follower from the feed.
func (fo *Follower) Close() { fo.feed.pump.remove(fo) }

// Wake returns the channel that has a token when Take may have events.
func (fo *Follower) Wake() <-chan struct{} { return fo.wake }

// At returns the position after the last event that was taken.
func (fo *Follower) At() protocol.Position { return fo.at }

// Take returns the next events, about most bytes of them at most, and moves on. It returns none if there are none at the
// moment. The caller owns the result, which uses the array of dst. It blocks only for log steps,
// longestWait for each at most, until ctx is done or the feed is stopped.
func (fo *Follower) Take(ctx context.Context, dst []Event, most int64) ([]Event, error) {
	for {
		events, to, ok := fo.feed.window.take(dst[:0], fo.at, most)
		if ok {
			fo.at = to
			return events, nil
		}
		ahead := to.Epoch == fo.at.Epoch && to.Version < fo.at.Version
		if ahead && fo.feed.past.now().Sub(fo.checked) < checkPause {
			return dst[:0], nil
		}
		s, err := fo.feed.past.after(ctx, fo.at)
		if err != nil {
			return nil, err
		}
		if s.head == s.start {
			fo.checked = fo.feed.past.now()
		}
		i, _ := s.after(fo.at)
		events, fo.at = s.take(dst[:0], i, fo.at, most)
		if len(events) > 0 || s.head == s.start {
			return events, nil
		}
		// Every write of the log step has been overtaken by a later one.
	}
}
