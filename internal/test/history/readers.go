package history

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// lineage is an epoch within a generation. Versions are comparable only within a lineage.
type lineage struct {
	epoch      uint64
	generation int
}

// frontier is the version that a reader has provably reached, as a function of time.
type frontier struct {
	at      []time.Duration
	version []uint64 // highest version reached at or before at[i]
	why     []string // reason, set for barriers only
}

func (f *frontier) add(at time.Duration, version uint64, why string) {
	if n := len(f.at); n > 0 && f.version[n-1] >= version {
		return
	}
	f.at = append(f.at, at)
	f.version = append(f.version, version)
	f.why = append(f.why, why)
}

// before returns the highest version reached before t.
func (f *frontier) before(t time.Duration) (version uint64, why string, ok bool) {
	i := sort.Search(len(f.at), func(i int) bool { return f.at[i] >= t })
	if i == 0 {
		return 0, "", false
	}
	return f.version[i-1], f.why[i-1], true
}

// seen is a read with the conclusions of the checker.
type seen struct {
	*read
	lineage   lineage // lowest possible lineage of a value; lineage of floor for an absence
	explained bool    // some write can have produced the value
	// floor is a version that an absence must follow, so later values must be newer than it.
	floor    uint64
	hasFloor bool
}

// readerCheck is the check of one reader.
type readerCheck struct {
	*checker
	name     string
	barriers map[lineage]*frontier // versions proven by barriers
	reached  map[lineage]*frontier // versions proven by barriers or responses
	lineages []lineage             // keys of reached, in order of appearance
}

// checkReader checks P2, P6 and the values of one reader.
func (c *checker) checkReader(log *readerLog) {
	rc := &readerCheck{
		checker:  c,
		name:     log.name,
		barriers: map[lineage]*frontier{},
		reached:  map[lineage]*frontier{},
	}
	reads := make([]seen, len(log.reads))
	for i := range log.reads {
		reads[i] = rc.explain(&log.reads[i])
	}
	rc.buildFrontiers(log, reads)

	slices.SortFunc(reads, func(a, b seen) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.invoked, b.invoked), cmp.Compare(a.returned, b.returned))
	})
	for len(reads) > 0 {
		n := sort.Search(len(reads), func(i int) bool { return reads[i].key > reads[0].key })
		rc.checkKey(reads[:n])
		reads = reads[n:]
	}
}

// explain finds the writes that can have produced the value of a read.
func (rc *readerCheck) explain(r *read) seen {
	s := seen{read: r}
	if r.absent {
		return s
	}
	origins, wrong := rc.origins(r.key, Entry{r.epoch, r.version, r.hash}, r.returned)
	if len(origins) == 0 {
		rc.violate("values", r.key, "%s of %s, but %s", describe(r), rc.name, wrong)
		return s
	}
	s.explained = true
	s.lineage = lineage{r.epoch, rc.lowest(origins[0])}
	for _, o := range origins[1:] {
		s.lineage.generation = min(s.lineage.generation, rc.lowest(o))
	}
	return s
}

func (rc *readerCheck) buildFrontiers(log *readerLog, reads []seen) {
	type event struct {
		at      time.Duration
		line    lineage
		version uint64
		why     string
	}
	var events []event
	for _, b := range log.barriers {
		events = append(events, event{b.at, lineage{b.epoch, 0}, b.version,
			fmt.Sprintf("it had reached version %d at %v", b.version, b.at)})
	}
	if !rc.h.runAhead {
		for _, s := range reads {
			if s.explained {
				events = append(events, event{s.returned, s.lineage, s.version, ""})
			}
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	grow := func(m map[lineage]*frontier, e event) {
		if m[e.line] == nil {
			m[e.line] = &frontier{}
		}
		m[e.line].add(e.at, e.version, e.why)
	}
	for _, e := range events {
		if rc.reached[e.line] == nil {
			rc.lineages = append(rc.lineages, e.line)
		}
		grow(rc.reached, e)
		if e.why != "" {
			grow(rc.barriers, e)
		}
	}
}

// known is the evidence of earlier responses about a key in one lineage.
type known struct {
	lineage lineage
	value   *seen // newest value
	absence *seen // absence with the highest floor
}

// checkKey checks the reads of one key in the order of their invocation, each against the responses that had
// arrived before it was sent.
func (rc *readerCheck) checkKey(reads []seen) {
	returned := make([]*seen, len(reads))
	for i := range reads {
		returned[i] = &reads[i]
	}
	slices.SortStableFunc(returned, func(a, b *seen) int { return cmp.Compare(a.returned, b.returned) })
	var state []known
	next := 0
	for i := range reads {
		r := &reads[i]
		for ; next < len(returned) && returned[next].returned < r.invoked; next++ {
			state = addEvidence(state, returned[next])
		}
		if r.absent {
			rc.checkAbsence(r, state)
		} else if r.explained {
			rc.checkValue(r, state)
		}
	}
}

func addEvidence(state []known, s *seen) []known {
	if !s.explained && !s.hasFloor {
		return state
	}
	i := slices.IndexFunc(state, func(k known) bool { return k.lineage == s.lineage })
	if i < 0 {
		i = len(state)
		state = append(state, known{lineage: s.lineage})
	}
	k := &state[i]
	if s.absent {
		if k.absence == nil || k.absence.floor < s.floor {
			k.absence = s
		}
	} else if k.value == nil || k.value.version < s.version {
		k.value = s
	}
	return state
}

func (rc *readerCheck) checkValue(r *seen, state []known) {
	line := lineage{r.epoch, rc.highest(r.returned)}
	for _, k := range state {
		if k.lineage != line {
			continue
		}
		if k.value != nil && k.value.version > r.version {
			rc.violate("P2", r.key, "%s of %s came after %s", describe(r.read), rc.name, describe(k.value.read))
			return
		}
		if k.absence != nil && k.absence.floor >= r.version {
			rc.violate("P2", r.key, "%s of %s came after %s, which must follow version %d",
				describe(r.read), rc.name, describe(k.absence.read), k.absence.floor)
			return
		}
	}
	f := rc.barriers[line]
	if f == nil {
		return
	}
	if version, why, ok := f.before(r.invoked); ok {
		if w := rc.lastWrite(r.key, line, version, false); w != nil && w.version > r.version {
			rc.violate("P2", r.key, "%s of %s, but %s, so it had %v", describe(r.read), rc.name, why, w)
		}
	}
}

// checkAbsence finds the newest value that the reader must have had. If there is one, a later delete must
// explain the absence.
func (rc *readerCheck) checkAbsence(r *seen, state []known) {
	generation := rc.highest(r.returned)
	for _, k := range state {
		if k.lineage.generation != generation || k.value == nil {
			continue
		}
		if !rc.explainAbsence(r, k.lineage, k.value.version) {
			rc.violate("P2", r.key, "%s of %s came after %s, and no later delete can explain it",
				describe(r.read), rc.name, describe(k.value.read))
			return
		}
	}
	for _, line := range rc.lineages {
		if line.generation != generation {
			continue
		}
		version, why, ok := rc.reached[line].before(r.invoked)
		if !ok {
			continue
		}
		w := rc.lastWrite(r.key, line, version, true)
		if w == nil || rc.explainAbsence(r, line, w.version) {
			continue
		}
		if why == "" {
			why = fmt.Sprintf("it had returned version %d before", version)
		}
		rc.violate("P6", r.key, "%s of %s is false: %s, so it had %v, and no later delete can explain it",
			describe(r.read), rc.name, why, w)
		return
	}
}

// explainAbsence reports whether a delete after a version that the reader had can explain an absence, and
// records the earliest possible position of the absence in the order of writes.
func (rc *readerCheck) explainAbsence(r *seen, line lineage, version uint64) bool {
	floor, ok := rc.firstDelete(r.key, line.epoch, version, r.returned)
	if ok && (!r.hasFloor || line == r.lineage && floor > r.floor) {
		r.lineage, r.floor, r.hasFloor = line, floor, true
	}
	return ok
}

// firstDelete returns the earliest possible position of an absence after version, if a delete sent before a
// time can explain it: the position of the first such delete, or version itself if the position of a
// possible delete is unknown.
func (rc *readerCheck) firstDelete(key string, epoch, version uint64, before time.Duration) (uint64, bool) {
	k := rc.keys[key]
	if k.unknownDelete < before {
		return version, true
	}
	for other, e := range k.acked {
		if other != epoch && len(e.deletes) > 0 && e.firstInvoked[0] < before {
			return version, true
		}
	}
	e := k.acked[epoch]
	if e == nil {
		return 0, false
	}
	i := sort.Search(len(e.deletes), func(i int) bool { return e.deletes[i].version > version })
	if i == len(e.deletes) || e.firstInvoked[i] >= before {
		return 0, false
	}
	return e.deletes[i].version, true
}

// lastWrite returns the newest acknowledged write of a key up to version that certainly belongs to line, or
// nil. With set it skips deletes.
func (rc *readerCheck) lastWrite(key string, line lineage, version uint64, set bool) *Write {
	k := rc.keys[key]
	if k == nil || k.acked[line.epoch] == nil {
		return nil
	}
	writes := k.acked[line.epoch].writes
	i := sort.Search(len(writes), func(i int) bool { return writes[i].version > version })
	for i--; i >= 0; i-- {
		w := writes[i]
		if rc.certainlyOf(w, line.generation) && !(set && w.del) {
			return w
		}
	}
	return nil
}

func describe(r *read) string {
	if r.absent {
		return fmt.Sprintf("the absence of %q, %v to %v,", r.key, r.invoked, r.returned)
	}
	return fmt.Sprintf("the response for %q, %v to %v, with %v", r.key, r.invoked, r.returned,
		Entry{r.epoch, r.version, r.hash})
}
