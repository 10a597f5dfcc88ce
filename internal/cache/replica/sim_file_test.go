package replica

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/model"
)

// The simulation of the snapshot file: a save visits one key after the other between all other events, and the replica
// is restarted from files that were saved at any time, of any history, also while Redis is away.

// simSave is a save in progress.
type simSave struct {
	start   saveStart
	next    int // number of the key to visit next
	entries []snapfile.Entry
}

// lookup is Replica.Get.
func (s *sim) lookup(key string) (store.Entry, store.Lookup) {
	if s.applier.public.withheld.Load() {
		return store.Entry{}, store.Miss
	}
	e, found := s.applier.store.Get([]byte(key))
	if found == store.Absent && s.applier.restoring {
		s.fail("%s is absent in a file that has not been caught up", key)
	}
	return e, found
}

// visit visits the next key of a save.
func (s *sim) visit() {
	if s.saving == nil || s.saving.next == simKeys {
		return
	}
	key := string(rune('a' + s.saving.next))
	s.saving.next++
	e, found := s.applier.store.Get([]byte(key))
	switch {
	case found != store.Hit:
	case e.Epoch != s.saving.start.head.Epoch:
		s.log("save ends: another epoch")
		s.saving = nil
	default:
		s.saving.entries = append(s.saving.entries, snapfile.Entry{Key: key, Value: strings.Clone(e.Value), Version: e.Version})
	}
}

// save begins or ends a save.
func (s *sim) save() {
	switch {
	case !s.restarts:
	case s.saving == nil:
		if start, err := s.applier.beginSave(); err == nil && s.rng.IntN(3) == 0 {
			s.saving = &simSave{start: start}
			s.log("save begins at %d", start.head.Version)
		}
	case s.saving.next == simKeys:
		done := s.saving
		s.saving = nil
		ahead, complete, err := s.applier.endSave(done.start)
		s.log("save from %d to %d, complete=%v: %v", done.start.head.Version, ahead.Version, complete, err)
		if err != nil {
			return
		}
		s.files = append(s.files, saved{
			header:  snapfile.Header{Start: snapfile.Head(done.start.head), Current: s.clock},
			summary: snapfile.Summary{Ahead: snapfile.Head(ahead), Complete: complete, Entries: uint64(len(done.entries))},
			read: func(_ context.Context, use func([]snapfile.Entry) error) error {
				for i := range done.entries {
					if err := use(done.entries[i : i+1]); err != nil {
						return err
					}
				}
				return nil
			},
		})
	default:
		for range 1 + s.rng.IntN(4) {
			s.visit()
		}
	}
}

// restart replaces the replica by a new process, which may load a file.
func (s *sim) restart(ctx context.Context) {
	s.applier.close()
	s.newReplica()
	s.redis.ForgetAnswers()
	s.saving, s.asked, s.network, s.inSync = nil, nil, nil, 0
	if s.rng.IntN(3) == 0 {
		s.away = s.clock.Add(time.Duration(s.rng.IntN(2500)) * time.Millisecond)
	}
	if len(s.files) > 0 && s.rng.IntN(5) > 0 {
		i := len(s.files) - 1
		if s.rng.IntN(3) == 0 {
			i = s.rng.IntN(len(s.files))
		}
		s.load(ctx, s.files[i])
	} else {
		s.log("restart without a file, Redis away=%v", s.clock.Before(s.away))
	}
	s.applier.resync(ctx, catchUpStart)
	s.inbox.requestCatchUp(catchUpSubscribed)
}

func (s *sim) load(ctx context.Context, f saved) {
	a := s.applier
	if err := a.load(ctx, &f); err != nil {
		panic(err)
	}
	s.log("restart from a file of %d to %d, Redis away=%v", a.watermark.Version, a.ahead.Version, s.clock.Before(s.away))
	switch s.broken {
	case "file at its end":
		a.watermark = a.ahead
	case "file without ahead":
		a.ahead = protocol.Head{}
	case "file of another history":
		a.watermark, a.ahead = protocol.Head(s.redis.Head()), protocol.Head{}
	case "file that is complete at once":
		if f.summary.Complete {
			a.store.FinishSnapshot()
		}
	}
	_, from := s.redis.Position(a.watermark.Epoch, a.watermark.Version, a.watermark.WriteID)
	_, to := s.redis.Position(f.summary.Ahead.Epoch, f.summary.Ahead.Version, f.summary.Ahead.WriteID)
	if from && to {
		s.inSync = s.redis.History() // the file is of this history, so its answers are checked at once
	}
}

// A save during which a snapshot is taken is discarded: what it has visited before may be of writes that never took
// place. So is a save that begins or ends during a snapshot.
func TestSaveAcrossASnapshot(t *testing.T) {
	s, end := newSim(1, "")
	defer end()
	s.faults, s.calm, s.live, s.relay, s.link = false, true, false, false, math.MaxInt64
	catchUp := func() {
		s.clock = s.clock.Add(time.Second)
		s.applier.resync(t.Context(), catchUpProbe)
	}
	for range 8 {
		w := set("a", "x")
		s.redis.Commit(model.Write{Key: "a", Frame: protocol.AppendFrame(nil, &w, s.clock)})
	}
	if _, err := s.applier.beginSave(); !errors.Is(err, errNotLoaded) {
		t.Errorf("a save of an empty replica: %v", err)
	}
	catchUp()
	start, err := s.applier.beginSave()
	if err != nil || start.head != protocol.Head(s.redis.Head()) {
		t.Fatal(start, err)
	}
	if ahead, complete, err := s.applier.endSave(start); err != nil || ahead != start.head || complete != s.applier.store.Complete() {
		t.Error(ahead, complete, err)
	}
	for before := s.redis.Head(); s.redis.Head() == before; s.redis.Failover() {
	}
	catchUp() // a snapshot
	if s.applier.watermark != protocol.Head(s.redis.Head()) || s.applier.generation != 2 {
		t.Fatalf("at %+v after %d snapshots, Redis at %+v", s.applier.watermark, s.applier.generation, s.redis.Head())
	}
	if _, _, err := s.applier.endSave(start); !errors.Is(err, errInterrupted) {
		t.Errorf("a snapshot was taken during the save: %v", err)
	}
	s.applier.store.BeginSnapshot(false)
	if _, err := s.applier.beginSave(); !errors.Is(err, errNotLoaded) {
		t.Errorf("a save during a snapshot: %v", err)
	}
}
