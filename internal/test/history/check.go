package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// Entry identifies the value of a key in Redis or in a reader.
type Entry struct {
	Epoch, Version uint64
	Hash           uint64 // see Hash
}

// EntryOf returns the Entry of a value.
func EntryOf(epoch, version uint64, value []byte) Entry {
	return Entry{epoch, version, hash(value)}
}

// State is the content of Redis or of a reader, by key. Missing keys are absent.
type State map[string]Entry

// Final is the state of Redis and of the readers after all faults have ended and the readers have converged.
type Final struct {
	Redis   State            // nil if unknown; then P1 and P3 are not checked
	Readers map[string]State // by the reader's name
}

// Violation is a broken promise.
type Violation struct {
	Promise string // "P1", "P2", "P3", "P6", "values" or "order"
	Key     string // the key concerned
	Account string // description of the operations involved, with their times since the start
}

func (v Violation) String() string { return v.Promise + ": " + v.Account }

// Verify calls Check and reports up to 20 violations as errors of t.
func (h *History) Verify(t testing.TB, final Final) {
	t.Helper()
	violations := h.Check(final)
	for i, v := range violations {
		if i == 20 {
			t.Errorf("... and %d more violations", len(violations)-i)
			return
		}
		t.Error(v)
	}
}

// Check returns all violations that the history proves:
//
//	P1      the final state of a reader differs from Redis
//	P2      a reader returned an older state than before, or than a barrier
//	P3      an acknowledged write is neither in Redis nor overwritten
//	P6      a reader returned the absence of a key that it must have had
//	values  a reader returned a value that was never written with this version, or not yet
//	order   the versions of acknowledged writes contradict their order in time
//
// Call it after all operations have been concluded.
func (h *History) Check(final Final) []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := newChecker(h)
	c.checkOrder()
	for _, name := range slices.Sorted(maps.Keys(h.readers)) {
		log := h.readers[name]
		log.mu.Lock()
		c.checkReader(log)
		log.mu.Unlock()
	}
	if final.Redis != nil {
		c.checkFinal(final)
	}
	return c.violations
}

// position is a place in the total order of writes.
type position struct{ epoch, version uint64 }

// checker is one pass over a history.
//
// Breaks split the history into generations. The lowest possible generation of a write is the number of
// breaks that ended before it was invoked. The highest possible generation at a time t is the number of
// breaks that began before t. Two operations are compared only if the lowest generation of the first equals
// the highest of the second, so that no break can lie between them.
type checker struct {
	h          *History
	breaks     []gap
	keys       map[string]*keyWrites
	at         map[position][]*Write // acknowledged writes; several per position only after a break
	violations []Violation
}

// keyWrites are the writes of one key, without refused ones.
type keyWrites struct {
	unknownSets   map[uint64][]*Write          // sets of unknown outcome, by hash of the value
	acked         map[uint64]*epochWrites      // acknowledged writes, by epoch
	unknownDelete time.Duration                // first invocation of a delete of unknown outcome, or never
	seenAs        map[uint64]map[position]bool // positions at which unknownSets were observed, by hash
}

// epochWrites are the acknowledged writes of one key in one epoch, ordered by version.
type epochWrites struct {
	writes  []*Write
	deletes []*Write
	// firstInvoked[i] is the earliest invocation in deletes[i:].
	firstInvoked []time.Duration
}

func newChecker(h *History) *checker {
	c := &checker{
		h:      h,
		breaks: h.breaks,
		keys:   map[string]*keyWrites{},
		at:     make(map[position][]*Write, len(h.writes)),
	}
	for _, w := range h.writes {
		if w.outcome != refused {
			c.add(w)
		}
	}
	for _, k := range c.keys {
		for _, e := range k.acked {
			e.index()
		}
	}
	return c
}

func (c *checker) add(w *Write) {
	k := c.keys[w.key]
	if k == nil {
		k = &keyWrites{
			unknownSets:   map[uint64][]*Write{},
			acked:         map[uint64]*epochWrites{},
			unknownDelete: never,
			seenAs:        map[uint64]map[position]bool{},
		}
		c.keys[w.key] = k
	}
	switch {
	case w.outcome == acknowledged:
		e := k.acked[w.epoch]
		if e == nil {
			e = &epochWrites{}
			k.acked[w.epoch] = e
		}
		e.writes = append(e.writes, w)
		p := position{w.epoch, w.version}
		c.at[p] = append(c.at[p], w)
	case w.del:
		k.unknownDelete = min(k.unknownDelete, w.invoked)
	default:
		k.unknownSets[w.hash] = append(k.unknownSets[w.hash], w)
	}
}

func (e *epochWrites) index() {
	slices.SortFunc(e.writes, func(a, b *Write) int { return cmp.Compare(a.version, b.version) })
	for _, w := range e.writes {
		if w.del {
			e.deletes = append(e.deletes, w)
		}
	}
	e.firstInvoked = make([]time.Duration, len(e.deletes))
	first := never
	for i := len(e.deletes) - 1; i >= 0; i-- {
		first = min(first, e.deletes[i].invoked)
		e.firstInvoked[i] = first
	}
}

// lowest returns the lowest possible generation of w.
func (c *checker) lowest(w *Write) int {
	n := 0
	for _, b := range c.breaks {
		if b.to < w.invoked {
			n++
		}
	}
	return n
}

// highest returns the highest possible generation at time t.
func (c *checker) highest(t time.Duration) int {
	n := 0
	for _, b := range c.breaks {
		if b.from < t {
			n++
		}
	}
	return n
}

// certainlyOf reports whether generation is the only possible one of w.
func (c *checker) certainlyOf(w *Write, generation int) bool {
	return c.lowest(w) == generation && c.highest(w.returned) == generation
}

func (c *checker) violate(promise, key, format string, args ...any) {
	c.violations = append(c.violations, Violation{promise, key, fmt.Sprintf(format, args...)})
}

// checkOrder compares versions with real time: a write acknowledged before another one was invoked must have
// the lower version, and versions must be unique.
func (c *checker) checkOrder() {
	byEpoch := map[uint64][]*Write{}
	for _, w := range c.h.writes {
		if w.outcome == acknowledged {
			byEpoch[w.epoch] = append(byEpoch[w.epoch], w)
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(byEpoch)) {
		invoked := byEpoch[epoch]
		returned := slices.Clone(invoked)
		slices.SortFunc(invoked, func(a, b *Write) int { return cmp.Compare(a.invoked, b.invoked) })
		slices.SortFunc(returned, func(a, b *Write) int { return cmp.Compare(a.returned, b.returned) })
		newest := make([]*Write, len(c.breaks)+1) // by generation
		next := 0
		for _, w := range invoked {
			for ; next < len(returned) && returned[next].returned < w.invoked; next++ {
				if r := returned[next]; newest[c.lowest(r)] == nil || newest[c.lowest(r)].version < r.version {
					newest[c.lowest(r)] = r
				}
			}
			if n := newest[c.highest(w.returned)]; n != nil && n.version >= w.version {
				c.violate("order", w.key, "%v was sent after %v", w, n)
			}
		}
	}
	for _, same := range c.at {
		for i, w := range same {
			for _, other := range same[:i] {
				if g := c.lowest(w); c.certainlyOf(w, g) && c.certainlyOf(other, g) {
					c.violate("order", w.key, "two writes have the same version: %v and %v", other, w)
				}
			}
		}
	}
}

// origins returns the writes that can have produced a value observed at a time. If there are none, the
// second result is the reason.
func (c *checker) origins(key string, e Entry, seen time.Duration) ([]*Write, string) {
	var found []*Write
	var wrong string
	same := c.at[position{e.Epoch, e.Version}]
	for _, w := range same {
		switch {
		case w.key != key || w.del || w.hash != e.Hash:
			wrong = fmt.Sprintf("that version was %v", w)
		case w.invoked > seen:
			wrong = fmt.Sprintf("it comes from the future: %v", w)
		default:
			found = append(found, w)
		}
	}
	k := c.keys[key]
	if k == nil || len(same) > 0 && len(c.breaks) == 0 {
		return found, orElse(wrong, "that key was never written")
	}
	// After a break a write of unknown outcome may have had the same position.
	exact := len(found) > 0
	for _, w := range k.unknownSets[e.Hash] {
		if w.invoked <= seen {
			found = append(found, w)
		}
	}
	if exact {
		return found, ""
	}
	if len(found) == 0 {
		return nil, orElse(wrong, "no write of the key had that version and could have written those bytes")
	}
	// A write is executed at most once, so a write of unknown outcome has at most one version.
	versions := k.seenAs[e.Hash]
	if versions == nil {
		versions = map[position]bool{}
		k.seenAs[e.Hash] = versions
	}
	versions[position{e.Epoch, e.Version}] = true
	if len(versions) > len(k.unknownSets[e.Hash]) {
		return nil, fmt.Sprintf("%v was executed more than once", found[0])
	}
	return found, ""
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// checkFinal checks P1 and P3.
func (c *checker) checkFinal(final Final) {
	for _, name := range slices.Sorted(maps.Keys(final.Readers)) {
		state := final.Readers[name]
		for _, key := range slices.Sorted(maps.Keys(state)) {
			if inRedis, ok := final.Redis[key]; !ok {
				c.violate("P1", key, "at the end %s holds %q as %v, but Redis does not have it", name, key, state[key])
			} else if state[key] != inRedis {
				c.violate("P1", key, "at the end %s holds %q as %v, but Redis holds %v", name, key, state[key], inRedis)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(final.Redis)) {
			if _, ok := state[key]; !ok {
				c.violate("P1", key, "at the end %s does not hold %q, but Redis holds %v", name, key, final.Redis[key])
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(final.Redis)) {
		if c.keys[key] == nil {
			c.violate("values", key, "at the end Redis holds %q as %v, but that key was never written", key, final.Redis[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.keys)) {
		if e, ok := final.Redis[key]; ok {
			c.checkKept(key, e)
		} else {
			c.checkGone(key)
		}
	}
}

// checkKept checks that the final value of a key is not older than any acknowledged write.
func (c *checker) checkKept(key string, e Entry) {
	origins, wrong := c.origins(key, e, never)
	if len(origins) == 0 {
		c.violate("values", key, "at the end Redis holds %q as %v, but %s", key, e, wrong)
		return
	}
	latest := time.Duration(0)
	for _, o := range origins {
		latest = max(latest, o.returned)
	}
	for _, w := range c.lastAcked(key) {
		if w.epoch == e.Epoch && w.version > e.Version || latest < w.invoked {
			c.violate("P3", key, "at the end Redis holds %q as %v, but %v is newer", key, e, w)
		}
	}
}

// checkGone checks that a delete after the last acknowledged set can explain the absence of a key at the
// end.
func (c *checker) checkGone(key string) {
	k := c.keys[key]
	if k.unknownDelete != never {
		return
	}
	for _, w := range c.lastAcked(key) {
		if w.del {
			continue
		}
		deleted := false
		for epoch, e := range k.acked {
			for _, d := range e.deletes {
				deleted = deleted || epoch == w.epoch && d.version > w.version || epoch != w.epoch && d.returned >= w.invoked
			}
		}
		if !deleted {
			c.violate("P3", key, "at the end Redis does not hold %q, but no delete followed %v", key, w)
		}
	}
}

// lastAcked returns, for each epoch, the acknowledged write of a key with the highest version, ignoring
// writes that a break may have lost.
func (c *checker) lastAcked(key string) []*Write {
	var last []*Write
	for _, epoch := range slices.Sorted(maps.Keys(c.keys[key].acked)) {
		writes := c.keys[key].acked[epoch].writes
		for i := len(writes) - 1; i >= 0; i-- {
			if c.lowest(writes[i]) == len(c.breaks) {
				last = append(last, writes[i])
				break
			}
		}
	}
	return last
}

func (e Entry) String() string {
	return fmt.Sprintf("version %d of epoch %x (hash %016x)", e.Version, e.Epoch, e.Hash)
}

func (w *Write) String() string {
	var b strings.Builder
	if w.del {
		fmt.Fprintf(&b, "the delete of %q", w.key)
	} else {
		fmt.Fprintf(&b, "the write of %q (hash %016x)", w.key, w.hash)
	}
	if w.outcome == acknowledged {
		fmt.Fprintf(&b, " acknowledged as version %d of epoch %x, %v to %v", w.version, w.epoch, w.invoked, w.returned)
	} else {
		fmt.Fprintf(&b, " of unknown outcome, sent at %v", w.invoked)
	}
	return b.String()
}
