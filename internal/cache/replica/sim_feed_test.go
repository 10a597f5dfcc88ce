package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/model"
)

// simFollower is a client that follows the feed of the simulated replica. It takes a snapshot of Redis when it has to.
type simFollower struct {
	*feed.Follower
	values  map[string]string // value by key, as the events say
	version uint64            // version of the last event, or of the snapshot
	epoch   uint64
}

// newFeed replaces the feed of a new replica by one with a tiny window. A follower of the replica before it resumes there.
func (s *sim) newFeed() {
	s.applier.feed = feed.New(1+s.rng.Int64N(4000), simLog{feedLog{s}, s})
	s.applier.feed.SetClock(s.applier.now)
	s.keyLists = newKeyLists(s.applier.store.Store, s.applier.feed)
	s.resumeFollower()
}

// resumeFollower makes the follower resume from its position.
func (s *sim) resumeFollower() {
	f := &s.follower
	if f.Follower == nil {
		return
	}
	at, err := protocol.ParsePosition(f.At().String())
	if err != nil || at != f.At() {
		s.fail("position %v of %+v: %v", at, f.At(), err)
	}
	if s.broken == "feed without ahead" {
		at.Ahead = protocol.Head{}
	}
	f.Close()
	f.Follower = s.applier.feed.Follow(at)
}

// simLog asks for the smallest log steps on a slow link, as the feed does after failures.
type simLog struct {
	feedLog
	sim *sim
}

func (l simLog) FetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	return l.feedLog.FetchStep(ctx, l.limited(q))
}

func (l simLog) FetchNewest(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	return l.feedLog.FetchNewest(ctx, l.limited(q))
}

func (l simLog) limited(q protocol.Query) protocol.Query {
	if l.sim.link < math.MaxInt64 {
		q.Limit = 1
	}
	return q
}

// follow lets the follower take events, or resume somewhere, and checks what it gets.
func (s *sim) follow() {
	f := &s.follower
	switch {
	case s.broken != "" && !strings.HasPrefix(s.broken, "feed "): // the other checks must find this mutant
		return
	case f.Follower == nil || s.rng.IntN(60) == 0:
		s.startFollower()
	case s.broken == "" && s.rng.IntN(3) == 0, strings.HasPrefix(s.broken, "feed pages "):
		s.readPage()
	case s.rng.IntN(4) == 0: // it resumes
		s.resumeFollower()
	}
	for range s.rng.IntN(4) {
		s.takeEvents()
		s.checkFollower()
	}
}

// startFollower takes a snapshot of Redis and follows from there.
func (s *sim) startFollower() {
	f := &s.follower
	if f.Follower != nil {
		f.Close()
	}
	now := s.source()
	head := protocol.Head(now.Head)
	if head.WriteID == 0 && head.Version > 0 { // junk in the log: a position without a write id does not show a rollback
		f.Follower = nil
		return
	}
	f.values, f.version, f.epoch = map[string]string{}, head.Version, head.Epoch
	for key, stored := range now.Values {
		if _, rec, err := protocol.DecodeStored(stored); err == nil {
			f.values[key] = rec.Value
		}
	}
	f.Follower = s.applier.feed.Follow(protocol.Position{Head: head})
}

// takeEvents takes events and reports whether there were any.
func (s *sim) takeEvents() bool {
	f := &s.follower
	if f.Follower == nil {
		return false
	}
	if s.broken == "feed without ahead" {
		s.resumeFollower()
	}
	from := f.At()
	events, err := f.Take(context.Background(), nil, 1+s.rng.Int64N(2000))
	if errors.Is(err, feed.ErrGone) {
		s.log("follower at %+v: %v", from, err)
		s.startFollower()
		return f.Follower != nil
	}
	if err != nil {
		s.log("follower at %+v: %v", from, err)
		return false
	}
	for _, e := range events {
		s.log("follower: version %d of %s deleted=%v", e.At.Version, e.Key, e.Deleted)
		if e.At.Epoch != f.epoch || e.At.Version <= f.version {
			s.fail("the follower at version %d of %x got version %d of %x", f.version, f.epoch, e.At.Version, e.At.Epoch)
		}
		f.version = e.At.Version
		if e.Deleted {
			delete(f.values, e.Key)
		} else {
			f.values[e.Key] = e.Value
		}
	}
	return len(events) > 0
}

// followToTheEnd checks that the follower has the state of Redis once it has caught up.
func (s *sim) followToTheEnd() {
	for quiet := 0; quiet < 3; {
		s.clock = s.clock.Add(2 * time.Second)
		if s.takeEvents() {
			quiet = 0
		} else {
			quiet++
		}
	}
	if s.follower.Follower == nil || s.redis.Head().Epoch == 0 {
		return
	}
	if at := s.follower.At(); at != (protocol.Position{Head: protocol.Head(s.redis.Head())}) {
		s.fail("the follower is at %+v at the end, Redis at %+v", at, s.redis.Head())
	}
	s.checkFollower()
}

// checkFollower checks that the follower has the state of Redis if it has caught up.
func (s *sim) checkFollower() {
	head := protocol.Head(s.redis.Head())
	// Without a history, nothing shows what has changed.
	if s.follower.Follower == nil || s.follower.At() != (protocol.Position{Head: head}) || head.Epoch == 0 || head.WriteID == 0 {
		return
	}
	want := map[string]string{}
	for key, stored := range s.redis.Values() {
		if _, rec, err := protocol.DecodeStored(stored); err == nil {
			want[key] = rec.Value
		}
	}
	if !maps.Equal(want, s.follower.values) {
		s.fail("the follower, which has caught up, has %s, Redis has %s", lengths(s.follower.values), lengths(want))
	}
}

func lengths(values map[string]string) string {
	n := map[string]int{}
	for key, value := range values {
		n[key] = len(value)
	}
	return fmt.Sprint(n)
}

// logged returns a log entry as the protocol decodes it.
func logged(e *model.Entry) protocol.LogEntry {
	l := protocol.LogEntry{Version: e.Version, WriteID: e.WriteID, Previous: e.Previous, Writes: len(e.Keys), Size: e.Size}
	w := protocol.Write{Op: protocol.Set}
	if e.Deletes {
		w.Op = protocol.Delete
	}
	var b []byte
	for _, w.Key = range e.Keys {
		b = protocol.AppendLogged(b, &w)
	}
	l.Logged = string(b)
	return l
}
