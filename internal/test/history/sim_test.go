package history

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// sim runs a primary with asynchronous replicas through a random schedule. Without a defect its replicas keep
// the promises. Time is a counter.
type sim struct {
	*rand.Rand
	h       *History
	clock   time.Duration
	defect  defect
	primary State
	log     []entry
	epoch   uint64
	version uint64
	readers []*replica
	flying  []func() bool // operations in flight; each call is a step and returns false after the last one
	serial  int

	truth oracle
}

type entry struct {
	key string
	del bool
	Entry
	bytes []byte
}

type replica struct {
	name    string
	state   map[string]entry
	applied int    // number of applied log entries
	reload  bool   // needs a snapshot
	stuck   bool   // applies nothing any more, by defect
	ahead   bool   // has applied the entry after the next one already
	held    *entry // old entry that a defect applies later
}

type defect int

const (
	none defect = iota
	outOfOrder
	skips
	staleFill
	resurrects
	falseAbsence
	losesWrite
	wrongBytes
	neverConverges
)

var defects = map[string]defect{
	"applies out of order": outOfOrder, "skips a message": skips, "stale fill": staleFill,
	"resurrects a deleted key": resurrects, "false 404": falseAbsence,
	"loses an acknowledged write": losesWrite, "wrong bytes": wrongBytes, "never converges": neverConverges,
}

func newSim(seed uint64, d defect) *sim {
	s := &sim{Rand: rand.New(rand.NewPCG(seed, uint64(d))), h: New(), defect: d, primary: State{}, epoch: 7}
	s.h.now = func() time.Duration { s.clock++; return s.clock }
	for i := range 2 {
		s.readers = append(s.readers, &replica{name: fmt.Sprintf("reader-%d", i), state: map[string]entry{}})
	}
	return s
}

func (s *sim) chance(percent int) bool { return s.IntN(100) < percent }
func (s *sim) key() string             { return fmt.Sprintf("key-%d", s.IntN(4)) }

func (s *sim) run(steps int) Final {
	for range steps {
		switch n := s.IntN(100); {
		case n < 8:
			s.startWrite()
		case n < 28:
			s.startRead()
		case n < 70 && len(s.flying) > 0:
			s.step()
		case n < 97:
			s.replicate(s.readers[s.IntN(len(s.readers))])
		case n < 98:
			r := s.readers[s.IntN(len(s.readers))]
			if r.applied > 0 && !r.reload && s.defect == none {
				last := s.log[r.applied-1]
				s.h.ReaderReached(r.name, last.Epoch, last.Version)
			}
		case s.defect == none && s.chance(30):
			s.lose()
		case s.defect == none && s.chance(20):
			s.epoch, s.version = s.Uint64(), 0 // a new history with the old values
		}
	}
	for len(s.flying) > 0 {
		s.step()
	}
	final := Final{Redis: s.primary, Readers: map[string]State{}}
	for _, r := range s.readers {
		for (r.applied < len(s.log) || r.reload) && !r.stuck {
			s.replicate(r)
		}
		final.Readers[r.name] = State{}
		for key, e := range r.state {
			final.Readers[r.name][key] = e.Entry
		}
	}
	return final
}

// steps advances operations during a fault.
func (s *sim) steps() {
	for range s.IntN(4) {
		if len(s.flying) > 0 {
			s.step()
		}
	}
}

func (s *sim) step() {
	i := s.IntN(len(s.flying))
	if !s.flying[i]() {
		s.flying = slices.Delete(s.flying, i, i+1)
	}
}

func (s *sim) startWrite() {
	key, del := s.key(), s.chance(30)
	s.serial++
	bytes := []byte(fmt.Sprint("value ", s.serial))
	if s.chance(5) {
		bytes = []byte("often the same")
	}
	var w *Write
	if del {
		w = s.h.Delete(key)
	} else {
		w = s.h.Write(key, bytes)
	}
	uncertain := 15 // percentage of writes of unknown outcome
	if s.defect != none {
		uncertain = 2 // because a delete of unknown outcome can explain many absences
	}
	lost, silent := s.chance(uncertain), s.chance(uncertain)
	fact := &fact{key: key, del: del, hash: hash(bytes), invoked: w.invoked, known: !silent && !lost}
	if lost {
		s.truth.facts = append(s.truth.facts, fact)
		if s.chance(50) {
			w.Unknown()
		}
		return
	}
	executed := false
	s.flying = append(s.flying, func() bool {
		if !executed {
			executed = true
			if _, exists := s.primary[key]; del && !exists || s.chance(3) {
				w.Refused()
				return false
			}
			s.version++
			e := entry{key, del, Entry{s.epoch, s.version, hash(bytes)}, bytes}
			fact.version = s.version
			s.truth.facts = append(s.truth.facts, fact)
			if s.defect == losesWrite && s.chance(30) {
				fact.dropped = true
			} else {
				s.log = append(s.log, e)
				s.applyToPrimary(e)
			}
			fact.epoch = e.Epoch
			return true
		}
		if silent {
			w.Unknown()
		} else {
			w.Ack(fact.epoch, fact.version)
		}
		return false
	})
}

func (s *sim) applyToPrimary(e entry) {
	if e.del {
		delete(s.primary, e.key)
	} else {
		s.primary[e.key] = e.Entry
	}
}

// lose rolls the primary back to an earlier state of the same epoch, like a failover to a lagging replica,
// or empties it.
func (s *sim) lose() {
	s.h.Break(func() {
		s.steps()
		defer s.steps()
		s.primary = State{}
		keep := 0
		if s.chance(50) {
			keep = s.IntN(len(s.log) + 1)
		}
		for _, r := range s.readers {
			r.reload = r.reload || r.applied > keep
		}
		s.log = slices.Clone(s.log[:keep])
		for _, e := range s.log {
			s.applyToPrimary(e)
		}
		if keep == 0 {
			s.epoch, s.version = s.Uint64(), 0
		} else {
			s.epoch, s.version = s.log[keep-1].Epoch, s.log[keep-1].Version
		}
	})
}

func (s *sim) replicate(r *replica) {
	switch {
	case r.stuck:
		return
	case r.reload:
		r.reload = false
		r.state = map[string]entry{}
		for _, e := range s.log {
			r.apply(e)
		}
		r.applied = len(s.log)
		return
	case r.applied >= len(s.log):
		return
	case s.defect == neverConverges && s.chance(3):
		r.stuck = true
		return
	case r.ahead:
		r.apply(s.log[r.applied])
		r.applied += 2
		r.ahead = false
		return
	case s.defect == outOfOrder && r.applied+1 < len(s.log) && s.chance(30):
		r.apply(s.log[r.applied+1])
		r.ahead = true
		return
	}
	e := s.log[r.applied]
	r.applied++
	if s.defect == skips && s.chance(10) {
		return
	}
	old, had := r.state[e.key]
	r.apply(e)
	wanted := s.defect == staleFill || s.defect == resurrects && e.del
	if wanted && had && r.held == nil && s.chance(30) {
		r.held = &old
	} else if r.held != nil && s.chance(30) {
		r.apply(*r.held)
		r.held = nil
	}
}

func (r *replica) apply(e entry) {
	if e.del {
		delete(r.state, e.key)
	} else {
		r.state[e.key] = e
	}
}

func (s *sim) startRead() {
	r, key := s.readers[s.IntN(len(s.readers))], s.key()
	reading := s.h.Read(r.name, key)
	answer := &answer{reader: r.name, key: key, invoked: reading.invoked}
	phase := 0
	var e entry
	var ok bool
	s.flying = append(s.flying, func() bool {
		phase++
		if phase == 1 {
			e, ok = r.state[key]
			if s.defect == falseAbsence && s.chance(30) {
				ok = false
			}
			if s.defect == wrongBytes && s.chance(2) {
				e.bytes = append([]byte("not "), e.bytes...)
			}
			return true
		}
		if s.chance(3) {
			reading.Unavailable()
			return false
		}
		if ok {
			reading.Value(e.Epoch, e.Version, e.bytes)
		} else {
			reading.Absent()
		}
		answer.absent, answer.version, answer.hash, answer.returned = !ok, e.Version, hash(e.bytes), s.clock
		s.truth.answers = append(s.truth.answers, answer)
		return false
	})
}

func TestCorrectReplicasAreNeverFlagged(t *testing.T) {
	seeds := uint64(5000)
	if testing.Short() {
		seeds = 500
	}
	for seed := range seeds {
		s := newSim(seed, none)
		final := s.run(50 + s.IntN(600))
		if v := s.h.Check(final); len(v) > 0 {
			t.Fatalf("seed %d: violations in a correct history: %v", seed, v)
		}
	}
}

func TestBrokenReplicasAreFlagged(t *testing.T) {
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 100
	}
	for _, name := range slices.Sorted(maps.Keys(defects)) {
		t.Run(name, func(t *testing.T) {
			visible := uint64(0)
			promises := map[string]int{}
			for seed := range seeds {
				s := newSim(seed, defects[name])
				final := s.run(400)
				expected := s.truth.visible(final)
				found := s.h.Check(final)
				for _, v := range found {
					promises[v.Promise]++
				}
				if expected == "" {
					continue
				}
				visible++
				if len(found) == 0 {
					t.Errorf("seed %d: no violation found, but %s", seed, expected)
				}
			}
			if visible < seeds/4 {
				t.Errorf("the defect was visible in %d of %d runs, want at least a quarter", visible, seeds)
			}
			t.Logf("visible in %d of %d runs; violations by promise: %v", visible, seeds, promises)
		})
	}
}

// oracle records the true execution and decides by brute force over all pairs of operations whether the
// defect is visible in a run. It does not support breaks.
type oracle struct {
	facts   []*fact
	answers []*answer
}

type fact struct {
	key            string
	del            bool
	hash           uint64
	invoked        time.Duration
	known          bool   // acknowledged with its version
	dropped        bool   // lost by defect
	epoch, version uint64 // 0 if not executed
}

type answer struct {
	reader, key       string
	invoked, returned time.Duration
	absent            bool
	version, hash     uint64
}

func (o *oracle) visible(final Final) string {
	for name, state := range final.Readers {
		if !maps.Equal(state, final.Redis) {
			return name + " differs from Redis at the end"
		}
	}
	for _, f := range o.facts {
		if f.dropped && f.known && !f.del && !o.explains(f.key, f.version, never) && final.Redis[f.key].Version < f.version {
			return fmt.Sprintf("version %d is lost", f.version)
		}
	}
	for _, b := range o.answers {
		if !b.absent && !slices.ContainsFunc(o.facts, func(f *fact) bool {
			return f.key == b.key && f.version == b.version && f.hash == b.hash
		}) {
			return fmt.Sprintf("version %d of %s was never written", b.version, b.key)
		}
		reached := uint64(0)
		for _, a := range o.answers {
			if a.reader != b.reader || a.returned >= b.invoked || a.absent {
				continue
			}
			reached = max(reached, a.version)
			if a.key == b.key && !b.absent && b.version < a.version {
				return fmt.Sprintf("%s went from version %d to %d", b.key, a.version, b.version)
			}
			if a.key == b.key && b.absent && !o.explains(b.key, a.version, b.returned) {
				return fmt.Sprintf("%s went from version %d to absent", b.key, a.version)
			}
		}
		for _, f := range o.facts {
			if b.absent && f.key == b.key && f.known && !f.del && f.version <= reached && !o.explains(b.key, f.version, b.returned) {
				return fmt.Sprintf("%s was absent after version %d", b.key, reached)
			}
		}
	}
	return ""
}

// explains reports whether a delete after version, sent before a time, can explain the absence of key.
func (o *oracle) explains(key string, version uint64, before time.Duration) bool {
	return slices.ContainsFunc(o.facts, func(f *fact) bool {
		return f.key == key && f.del && f.invoked < before && (!f.known || f.version > version)
	})
}
