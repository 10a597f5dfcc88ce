package replica

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/model"
)

// calmSim returns a simulation without events whose replica is in sync.
func calmSim(t *testing.T) *sim {
	s, end := newSim(1, "")
	t.Cleanup(end)
	s.faults, s.calm, s.live, s.relay, s.link = false, true, false, false, math.MaxInt64
	s.commit()
	s.turns.take(func(a *applier) { a.resync(t.Context(), catchUpStart) })
	return s
}

// commit writes to Redis and returns the message.
func (s *sim) commit() string {
	w := set("a", "x")
	return s.redis.Commit(model.Write{Key: "a", Frame: protocol.AppendFrame(nil, &w, s.clock)})
}

// applied returns the version of the watermark.
func (s *sim) applied() uint64 { return s.applier.public.Load().watermark.Version }

func TestMessagesAreAppliedWhereTheyAreRead(t *testing.T) {
	s := calmSim(t)
	for version := uint64(2); version < 5; version++ {
		s.turns.receive(s.commit())
		if e, found := s.applier.store.Get([]byte("a")); found != store.Hit || e.Version != version || s.applied() != version {
			t.Errorf("at version %d with %v %+v after the message of version %d", s.applied(), found, e, version)
		}
	}
	if received, _ := s.applier.inbox.received(s.redis.Head().Epoch); received != 4 || len(s.inbox.messages) > 0 {
		t.Errorf("version %d counts as received, and %d messages wait", received, len(s.inbox.messages))
	}
	lost := s.commit() // a gap needs a request to Redis
	after := s.commit()
	s.turns.receive(after)
	if s.applied() != 4 || !slices.Equal(s.inbox.messages, []string{after}) {
		t.Errorf("at version %d with %d messages in the inbox after the message of %d bytes was lost", s.applied(), len(s.inbox.messages), len(lost))
	}
	s.turns.take(func(*applier) { s.deliver(0) })
	if s.applied() != 6 {
		t.Errorf("at version %d after the gap", s.applied())
	}
	for i, r := range s.applier.decoded.Records[:cap(s.applier.decoded.Records)] {
		if r != (protocol.Record{}) {
			t.Errorf("decoded record %d is kept: %+v", i, r)
		}
	}
}

// turnSource calls during before it returns a log step, so in the middle of a turn.
type turnSource struct {
	source
	during func()
}

func (s *turnSource) fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	st, err := s.source.fetchStep(ctx, q)
	s.during()
	return st, err
}

// A message that arrives during a turn, as that of a snapshot, waits until its end.
func TestMessageDuringATurnWaits(t *testing.T) {
	s := calmSim(t)
	for name, turn := range map[string]func(*applier) error{
		"catch-up": func(a *applier) error { return a.catchUp(t.Context(), catchUpMiss) },
		"snapshot": func(a *applier) error { return a.takeSnapshot(t.Context(), snapshotVanished) },
	} {
		before, asked := s.applied(), 0
		var message string
		s.applier.source = &turnSource{s, func() {
			if asked++; asked > 1 {
				return
			}
			message = s.commit()
			s.turns.receive(message)
			if s.applied() != before || !slices.Equal(s.inbox.messages, []string{message}) {
				t.Errorf("%s: at version %d instead of %d, with %d messages in the inbox", name, s.applied(), before, len(s.inbox.messages))
			}
		}}
		s.turns.take(func(a *applier) {
			if err := turn(a); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		s.applier.source = s
		s.turns.take(func(*applier) { s.deliver(0) })
		if s.applied() != before+1 || asked == 0 {
			t.Errorf("%s: at version %d after it, want %d", name, s.applied(), before+1)
		}
	}
}

// A message does not overtake another one, nor a catch-up, that waits for the applier.
func TestMessagesKeepTheirOrder(t *testing.T) {
	s := calmSim(t)
	s.turns.take(func(*applier) { s.turns.receive("of another program, longer than the header of a message") })
	first := s.commit()
	s.turns.receive(first)
	if s.applied() != 1 || len(s.inbox.messages) != 2 || s.inbox.messages[1] != first {
		t.Errorf("at version %d with %d messages in the inbox: a message has overtaken another one", s.applied(), len(s.inbox.messages))
	}
	s.turns.take(func(*applier) { s.deliver(0) })
	s.inbox.requestCatchUp(catchUpSubscribed)
	s.turns.receive(s.commit())
	if s.applied() != 2 || len(s.inbox.messages) != 1 {
		t.Errorf("at version %d with %d messages in the inbox: a message has overtaken a catch-up", s.applied(), len(s.inbox.messages))
	}
	s.turns.take(func(*applier) { s.deliver(0) })
	s.turns.receive(s.commit())
	if s.applied() != 4 || len(s.inbox.messages) != 0 {
		t.Errorf("at version %d with %d messages in the inbox", s.applied(), len(s.inbox.messages))
	}
}

// burst is a source with a Redis that receives a write right before a log step for one missed key.
type burst struct {
	source
	write func()
}

func (b burst) fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	if len(q.Missed) == 1 {
		b.write()
	}
	return b.source.fetchStep(ctx, q)
}

// The log step for a missed key may end within a commit. Then the store is ahead of the watermark: it is not in sync, and
// publishes no digest.
func TestMissedKeyWithinACommit(t *testing.T) {
	s := calmSim(t)
	s.turns.take(func(a *applier) {
		before, _ := a.digest()
		a.source = burst{a.source, func() {
			var writes []model.Write
			for _, key := range []string{"a", "b", "c"} {
				w := set(key, strings.Repeat("x", 2*stepLeast))
				writes = append(writes, model.Write{Key: key, Frame: protocol.AppendFrame(nil, &w, s.clock)})
			}
			s.redis.Commit(writes...)
		}}
		a.cautious = true
		if err := s.misses.enqueue(&miss{key: "z", done: make(chan missed, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := a.catchUp(t.Context(), catchUpMiss); err != nil {
			t.Fatal(err)
		}
		if a.part.Writes == 0 || a.watermark != before.Head {
			t.Fatalf("the log step ends at %+v, part %+v", a.watermark, a.part)
		}
		if d, ok := a.digest(); a.synced || ok {
			t.Errorf("in sync: %v, digest %+v; it was %+v", a.synced, d, before)
		}
	})
}
