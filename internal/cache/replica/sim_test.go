package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/model"
)

// A randomized simulation of the protocol: the real applier, inbox, miss queue and store against a model of Redis and of the
// network, on one goroutine, so that a seed replays a schedule (except for ristretto's choice of victims, which is random).
// Writes, reads, reads with a token, lost and late messages, messages of other stacks, failing log steps, slow links,
// trimmed logs, invalid log entries, restarts, failovers and flushes occur in any order, also between the instant of a reply
// and its application.

var (
	simSeed  = flag.Uint64("sim.seed", 0, "replay only the schedule with this seed")
	simCount = flag.Int("sim.count", 1000, "number of schedules")
)

type sim struct {
	follower simFollower
	pager    simPager
	keyLists *keyLists
	rng      *rand.Rand
	redis    *model.Redis
	turns    *turns
	applier  *applier
	inbox    *inbox
	misses   *missQueue
	faults   bool
	calm     bool       // no more events except those of the replica
	crowded  bool       // other programs use the channel and write to the log
	live     bool       // the channel delivers every message at once, so no probe may report it as silent
	link     int64      // largest log step that the link carries before the timeout, in bytes
	tokens   []issued   // tokens of the last writes
	others   [12]uint64 // epochs of other stacks on the channel
	clock    time.Time
	relay    bool     // the replica reads from Redis replicas that lag
	server   int      // number of that Redis replica
	at       int      // position of that Redis replica
	history  int      // number of the history of at
	network  []sent   // messages in flight
	asked    []asked  // reads that wait for Redis
	inSync   int      // number of the history that the replica was last in sync with
	size     int64    // limit of the store, in bytes
	restarts bool     // saves and restarts occur
	saving   *simSave // save in progress, or nil
	files    []saved
	seen     int       // history of Redis after the last round
	away     time.Time // until then Redis does not answer
	trace    []string
	compared int // digests that were compared with the state of Redis
	failed   string
	broken   string // name of the mutant; "" for the real protocol
}

// sent is a published message and the position of its commit.
type sent struct {
	message  string
	position int
}

// issued is a token that a client of the writer has, with the position of the write.
type issued struct {
	protocol.Token
	position, history int
}

type asked struct {
	key string
	m   *miss
	min protocol.Token
	// The answer must not be older than this position: Redis was asked there, and earlier answers were from there.
	from    int
	history int
}

func newSim(seed uint64, broken string) (*sim, func()) {
	s := &sim{rng: rand.New(rand.NewPCG(seed, 1)), faults: true, clock: time.Unix(1e9, 0), broken: broken}
	s.redis = model.New(s.rng, 4+s.rng.IntN(12))
	s.crowded = s.rng.IntN(2) == 0
	s.live = s.rng.IntN(4) == 0
	s.relay = !s.live && s.rng.IntN(4) == 0
	s.link = math.MaxInt64
	slow := s.rng.IntN(3) == 0
	if broken != "" { // a mutant shows soonest when little else happens
		s.crowded, s.live, s.relay, slow = false, false, broken == "no lag tolerance", broken == "no shrinking" || broken == "part too large"
	}
	if slow {
		s.link = largestStep + s.rng.Int64N(largestStep)
	}
	for i := range s.others {
		s.others[i] = s.rng.Uint64() | 1
	}
	s.size = 64 << 10
	if s.rng.IntN(2) == 0 {
		s.size = 800 // four or five entries, so that evictions occur all the time
	}
	s.restarts = broken == "" && s.rng.IntN(3) == 0 || strings.HasPrefix(broken, "file ")
	s.newReplica()
	return s, func() { s.applier.close() }
}

// newReplica makes the replica, with an empty store.
func (s *sim) newReplica() {
	owner, err := store.New(store.Config{MaxSize: s.size, NumCounters: 100, BufferItems: 64})
	if err != nil {
		panic(err)
	}
	s.inbox, s.misses = newInbox(), newMissQueue()
	s.applier = newApplier(s, owner, s.inbox, s.misses, quiet(), newMetrics())
	s.turns = newTurns(s.applier)
	s.applier.now = func() time.Time { return s.clock }
	s.newFeed()
	s.misses.now = s.applier.now
	s.applier.stepLimit = byteBound{least: 1, most: 8 * largestStep}
	if s.broken == "no shrinking" {
		s.applier.stepLimit.least = 8 * largestStep
	}
}

func (s *sim) log(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf(format, args...)
		s.log("VIOLATION %s", s.failed)
	}
}

const simKeys = 9

// largestStep is the largest size of a log step that cannot be smaller, in bytes: the value of one write, the value of one
// missed key, and the entry.
const largestStep = 2*(protocol.StampSize+protocol.FrameHeader+1+60) + 40

func (s *sim) key() string { return string(rune('a' + s.rng.IntN(simKeys))) }

// event causes a random event that does not wait for the applier.
func (s *sim) event() {
	switch n := s.rng.IntN(100); {
	case n < 30:
		s.write()
	case n < 70:
		s.read(s.key())
	case n < 74:
		s.readYourWrite()
	case n >= 95:
		s.visit()
	case n < 76 && s.relay && s.faults:
		s.replicate()
	case n >= 89 && n < 95:
		s.arrive(1+s.rng.IntN(3), s.receive)
	case n < 78 && s.faults:
		if s.crowded {
			s.foreignMessage()
		}
	case n < 84 && s.faults:
		if len(s.network) > 0 && s.rng.IntN(3) == 0 { // the link breaks: messages in flight are lost
			s.log("link cut, %d messages lost", len(s.network))
			s.network = nil
			if s.rng.IntN(2) == 0 {
				s.inbox.requestCatchUp(catchUpSubscribed)
			} // otherwise it stays silent, and only a probe can detect it
		}
	case n < 86 && s.faults:
		s.redis.Trim()
		s.log("log trimmed")
	case n < 88 && s.faults:
		if s.crowded {
			s.redis.Junk()
			s.log("junk in the log: now %+v", s.redis.Head())
		}
	case n < 89 && s.faults:
		switch s.rng.IntN(4) {
		case 0:
			s.redis.Failover()
			s.log("failover: back to version %d", s.redis.Head().Version)
		case 1:
			s.redis.Flush()
			s.log("flush")
		case 2:
			s.redis.SetBack()
			s.log("sequence set back")
		case 3:
			s.redis.Forget()
			s.log("sequence, epoch and log deleted")
		}
		s.network = nil
	}
}

func (s *sim) write() {
	var writes []model.Write
	for range 1 + s.rng.IntN(6)/3*s.rng.IntN(4) {
		w := protocol.Write{Op: protocol.Set, Key: s.key()}
		w.Value = []byte(w.Key + strings.Repeat("v", s.rng.IntN(60)))
		writes = append(writes, model.Write{Key: w.Key, Frame: protocol.AppendFrame(nil, &w, s.clock)})
	}
	if len(writes) == 1 && s.rng.IntN(3) == 0 {
		w := protocol.Write{Op: protocol.Delete, Key: writes[0].Key}
		writes[0] = model.Write{Delete: true, Key: w.Key, Frame: protocol.AppendFrame(nil, &w, s.clock)}
	}
	if message := s.redis.Commit(writes...); message != "" {
		s.publish(message)
		head := s.redis.Head()
		s.tokens = append(s.tokens, issued{protocol.Token{Epoch: head.Epoch, Version: head.Version}, s.redis.End(), s.redis.History()})
		s.tokens = s.tokens[max(0, len(s.tokens)-5):]
		for i, w := range writes {
			s.log("write %d: %s delete=%v", int(s.redis.Head().Version)-len(writes)+1+i, w.Key, w.Delete)
		}
	}
}

// publish sends a message to the replica.
func (s *sim) publish(message string) {
	if s.live {
		s.receive(message)
		return
	}
	s.network = append(s.network, sent{message, s.redis.End()})
}

// receive passes a message to the replica as its subscription does. The applier may be in the middle of a turn.
func (s *sim) receive(message string) {
	s.turns.receive(message)
}

// replicate advances the Redis replica, or connects the replica to another one.
func (s *sim) replicate() {
	if s.rng.IntN(10) > 0 {
		s.at = s.position() + s.rng.IntN(5)
		return
	}
	s.server++
	s.at, s.history = max(0, s.redis.End()-s.rng.IntN(8)), s.redis.History()
	s.network = nil
	s.inbox.requestCatchUp(catchUpSubscribed)
	s.log("on another Redis replica, at position %d of %d", s.at, s.redis.End())
}

// position returns the position of the server that the replica reads from.
func (s *sim) position() int {
	if !s.relay {
		return s.redis.End()
	}
	if s.history != s.redis.History() {
		s.at, s.history = 0, s.redis.History()
	}
	s.at = min(s.at, s.redis.End())
	// P2 holds for Redis replicas that lag for less than lagTolerance. After that, the lag counts as a rollback.
	if since := s.applier.behindSince; !since.IsZero() && s.clock.Sub(since) >= lagTolerance-2*stepTimeout {
		s.at = s.redis.End()
	}
	return s.at
}

// run identifies the run of the server that the replica reads from.
func (s *sim) run() int { return s.redis.Run()<<16 + s.server }

// source returns the state of the server that the replica reads from.
func (s *sim) source() model.State {
	if !s.relay {
		return s.redis.Now()
	}
	return s.redis.At(s.position())
}

// get returns a value from the server that the replica reads from.
func (s *sim) get(key string) (stored string, present bool) {
	stored, present = s.source().Values[key]
	return stored, present
}

// foreignMessage publishes a message of another stack on the same channel, or of another program.
func (s *sim) foreignMessage() {
	if s.rng.IntN(3) == 0 {
		s.publish(fmt.Sprintf(`{"%d":"longer than the header of a message"}`, s.rng.IntN(1000)))
		return
	}
	w := set(s.key(), "not ours")
	head := binary.BigEndian.AppendUint64(nil, s.others[s.rng.IntN(len(s.others))])
	head = binary.BigEndian.AppendUint64(head, 1+s.rng.Uint64N(100))
	head = binary.BigEndian.AppendUint64(head, s.rng.Uint64())
	head = binary.BigEndian.AppendUint64(head, s.rng.Uint64())
	s.publish(string(protocol.AppendFrame(head, &w, s.clock)))
}

// readYourWrite reads with the token of a client of the writer, as a reader does.
func (s *sim) readYourWrite() {
	if len(s.tokens) == 0 {
		return
	}
	token, key := s.tokens[s.rng.IntN(len(s.tokens))], s.key()
	if token.history != s.redis.History() {
		return // the history is over: no promise holds
	}
	w := s.applier.public.Load().watermark
	reached := w.Reached(token.Token) || s.broken == "any epoch" && w.Epoch != 0 && w.Epoch != token.Epoch
	_, known := s.redis.Position(w.Epoch, w.Version, w.WriteID)
	e, found := s.lookup(key)
	switch {
	case !reached && s.relay: // the read waits and gets no answer
	case !reached || found == store.Miss:
		s.ask(key, token.Token)
	case w.Epoch == token.Epoch && (s.inSync != s.redis.History() || !known):
		// A token does not distinguish a version from the same version before a rollback.
	default:
		s.check("memory with a token", key, e.Version, found == store.Hit, max(token.position, s.redis.Floor(key)))
	}
}

func (s *sim) ask(key string, min protocol.Token) {
	from := s.redis.End()
	if s.relay {
		from = s.redis.Floor(key) // may be stale, but never goes back
	}
	m := &miss{key: key, done: make(chan missed, 1)}
	if s.misses.enqueue(m) == nil {
		s.asked = append(s.asked, asked{key: key, m: m, min: min, from: from, history: s.redis.History()})
	}
}

// read reads from memory as a reader does, and checks the answer against the model.
func (s *sim) read(key string) {
	e, found := s.lookup(key)
	w := s.applier.public.Load().watermark
	from, known := s.redis.Position(w.Epoch, w.Version, w.WriteID)
	switch {
	case found == store.Miss:
		s.ask(key, protocol.Token{})
	case !known || s.inSync != s.redis.History():
		// Across histories no promise holds until the replica is in sync with the new one.
	default:
		s.check("memory", key, e.Version, found == store.Hit, max(from, s.redis.Floor(key)))
	}
}

// noteSync records that the replica reports to be in sync.
func (s *sim) noteSync() {
	w := s.applier.watermark
	if w.Epoch == 0 && len(s.redis.Values()) > 0 {
		return // without a history it cannot be in sync
	}
	if _, known := s.redis.Position(w.Epoch, w.Version, w.WriteID); known && s.applier.synced && !s.applier.noHistory {
		s.inSync = s.redis.History()
	}
}

// checkDigest checks that a digest is that of Redis's state at its head.
func (s *sim) checkDigest() {
	d, ok := s.applier.digest()
	if !ok {
		return
	}
	if s.applier.restoring || s.applier.public.withheld.Load() {
		s.fail("a digest of a file that Redis has not confirmed, at %+v", d.Head)
	}
	position, known := s.redis.Position(d.Head.Epoch, d.Head.Version, d.Head.WriteID)
	if !known {
		return // Redis has been rolled back
	}
	var want uint64
	for key, stored := range s.redis.At(position).Values {
		written, rec, err := protocol.DecodeStored(stored)
		if err != nil {
			continue // counts as absent
		}
		want += store.EntryDigest(store.KeyHash([]byte(key)), written.VersionIn(d.Head.Epoch), store.Checksum(rec.Value))
	}
	s.compared++
	if d.Value != want {
		s.fail("the digest at %+v is %016x, that of Redis's state there is %016x", d.Head, d.Value, want)
	}
}

// check compares an answer with the states of the key since from, and with the earlier answers of this replica.
func (s *sim) check(where, key string, version uint64, present bool, from int) {
	s.log("read %s from %s: version %d present=%v; at %+v synced=%v", key, where, version, present, s.applier.watermark.Version, s.applier.synced)
	if why := s.redis.Check(key, version, present, from); why != "" {
		s.fail("%s answered %s version=%d present=%v: %s", where, key, version, present, why)
	}
}

// answers checks the answers of misses.
func (s *sim) answers() {
	s.asked = slices.DeleteFunc(s.asked, func(a asked) bool {
		select {
		case got := <-a.m.done:
			if got.err == nil && a.history == s.redis.History() {
				if got.head.Epoch == a.min.Epoch && !got.head.Reached(a.min) {
					s.fail("Redis, asked at position %d, does not have its own version %v", a.from, a.min)
				}
				s.check("redis", a.key, got.entry.Version, got.present, a.from)
			}
			return true
		default:
			return false
		}
	})
}

func (s *sim) events(n int) {
	if s.calm {
		return
	}
	for range s.rng.IntN(n + 1) {
		s.event()
	}
}

var errSim = errors.New("simulated failure")

// fetchStep implements source.
func (s *sim) fetchStep(_ context.Context, q protocol.Query) (protocol.LogStep, error) {
	return s.fetchFrom(s.source, q)
}

// fetchNewest implements source.
func (s *sim) fetchNewest(_ context.Context, q protocol.Query) (protocol.LogStep, error) {
	return s.fetchFrom(s.redis.Now, q)
}

func (s *sim) fetchFrom(server func() model.State, q protocol.Query) (protocol.LogStep, error) {
	s.events(2)
	if s.faults && (s.rng.IntN(12) == 0 || s.clock.Before(s.away)) {
		return protocol.LogStep{}, errSim
	}
	st := s.instant(server(), q)
	if st.Size > s.link {
		s.log("log step of %d bytes: too large for the link", st.Size)
		s.clock = s.clock.Add(stepTimeout)
		return protocol.LogStep{}, errSim
	}
	s.clock = s.clock.Add(time.Duration(float64(st.Size) / float64(s.link) * float64(stepTimeout)))
	s.events(2) // after the instant of the reply, before it is applied
	s.log("log step from %d: %d entries, %d missed, part of %d, head %d", q.Watermark.Version, len(st.Entries), len(st.Missed), st.Part.Writes, st.Head.Version)
	if s.broken == "two-step" {
		for !s.calm && s.rng.IntN(4) > 0 { // writes between the two steps show this mutant
			s.write()
		}
		for i := range st.Values {
			st.Values[i].Stored, st.Values[i].Present = s.get(st.Values[i].Key)
		}
		for i := range st.Missed {
			st.Missed[i].Stored, st.Missed[i].Present = s.get(st.Missed[i].Key)
		}
	}
	if s.faults && s.rng.IntN(20) == 0 {
		return protocol.LogStep{}, errSim // the reply was lost
	}
	return st, nil
}

func (s *sim) current(context.Context) error {
	if s.faults && s.rng.IntN(10) == 0 {
		return errSim
	}
	return nil
}

func (s *sim) fromReplica() bool { return s.relay && s.broken != "no lag tolerance" }

// instant performs what step.lua does.
func (s *sim) instant(now model.State, q protocol.Query) (st protocol.LogStep) {
	room := q.Limit
	_, st.Ahead = now.After(q.Ahead.Version)
	if s.broken == "no check ahead" {
		st.Ahead = q.Ahead.WriteID
	}
	st.Head = protocol.Head(now.Head)
	most := 1 + s.rng.IntN(6)
	if s.calm {
		most = math.MaxInt
	}
	entries, at := now.After(q.Watermark.Version)
	st.At = at
	seen := map[string]bool{}
	get := func(key string) protocol.Value {
		stored, present := now.Values[key]
		room -= int64(len(stored))
		return protocol.Value{Key: key, Stored: stored, Present: present}
	}
	for _, e := range entries[:min(most, len(entries))] {
		if room <= 0 {
			break
		}
		read, skip := 0, 0
		if q.Part.Writes > 0 && q.Part.WriteID == e.WriteID {
			skip = q.Part.Writes
			if s.broken == "part too large" {
				skip++
			}
		}
		q.Part = protocol.Part{}
		for _, key := range e.Keys {
			if skip > 0 {
				skip, read = skip-1, read+1
				continue
			}
			if room <= 0 && len(st.Values) > 0 {
				break
			}
			read++
			if s.broken == "skip" && s.rng.IntN(10) == 0 {
				seen[key] = true // omits a value
			}
			if !seen[key] {
				seen[key] = true
				st.Values = append(st.Values, get(key))
			}
		}
		if read < len(e.Keys) {
			st.Part = protocol.Part{WriteID: e.WriteID, Writes: read}
			break
		}
		st.Entries = append(st.Entries, logged(&e))
		room -= int64(e.Size)
		if len(e.Keys) == 0 {
			break
		}
	}
	for i, key := range q.Missed {
		if i > 0 && (room <= 0 || s.rng.IntN(10) == 0) {
			st.Missed = append(st.Missed, protocol.Value{Key: key, Skipped: true})
		} else {
			st.Missed = append(st.Missed, get(key))
		}
	}
	st.Measure()
	return st
}

func (s *sim) open(context.Context) (pages, error) {
	s.events(2)
	if s.faults && (s.rng.IntN(6) == 0 || s.clock.Before(s.away)) {
		return nil, errSim
	}
	return &simPages{sim: s, began: s.run()}, nil
}

// simPages is a SCAN: it returns every key that exists from the first to the last page, perhaps some of the others, and some
// keys twice. Two connections read the values; only the pages of one connection come in the order of their instants.
type simPages struct {
	*sim
	begun   bool
	began   int              // run of the server
	applied []protocol.Value // values of the last page
	conns   [2]simConn
}

type simConn struct {
	keys  []string
	ready []readPage
}

type readPage struct {
	values []protocol.Value
	err    error
}

func (p *simPages) next(_ context.Context, ahead bool) (page, error) {
	if !p.begun {
		p.begun = true
		p.scan()
	}
	for _, v := range p.applied { // visible now
		p.sim.read(v.Key)
	}
	if p.rng.IntN(8) == 0 { // a page takes long
		p.applied = nil
		p.events(4)
		return page{more: true, idle: p.underway() == 0}, nil
	}
	if p.underway() == 0 {
		p.read(1)
	}
	if ahead {
		p.read(p.rng.IntN(1 + pagesAhead))
	}
	var got readPage
	n := p.underway()
	if n > 0 {
		c := p.any(func(c *simConn) bool { return len(c.ready) > 0 })
		got = c.ready[0]
		c.ready = c.ready[1:]
	}
	p.applied = got.values
	answer := page{values: got.values, more: n > 0, idle: n < 2}
	p.log("page of %d, ahead=%v, more=%v, idle=%v, %v", len(answer.values), ahead, answer.more, answer.idle, got.err)
	p.clock = p.clock.Add(time.Duration(p.rng.IntN(15)) * time.Millisecond)
	p.events(2)
	if p.broken == "late page" {
		p.read(1) // prefetches against the request
	}
	return answer, got.err
}

func (p *simPages) scan() {
	keys := slices.Sorted(maps.Keys(p.source().Values))
	if p.rng.IntN(2) == 0 || p.broken == "any connection" { // only a key that is returned twice shows this mutant
		keys = append(keys, keys...)
	}
	p.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, key := range keys {
		i := int(key[len(key)-1]) % 2
		if p.broken == "any connection" {
			i = p.rng.IntN(2)
		}
		p.conns[i].keys = append(p.conns[i].keys, key)
	}
}

// any returns a random connection for which wanted holds, or nil.
func (p *simPages) any(wanted func(*simConn) bool) *simConn {
	i := p.rng.IntN(2)
	for _, c := range []*simConn{&p.conns[i], &p.conns[1-i]} {
		if wanted(c) {
			return c
		}
	}
	return nil
}

func (p *simPages) underway() int { return len(p.conns[0].ready) + len(p.conns[1].ready) }

// read reads this number of pages, or fewer when no more keys are left.
func (p *simPages) read(pages int) {
	for ; pages > 0; pages-- {
		c := p.any(func(c *simConn) bool { return len(c.keys) > 0 })
		if c == nil {
			return
		}
		var got readPage
		if p.faults && p.rng.IntN(20) == 0 || p.relay && p.began != p.run() {
			got.err = errSim // the connections to another Redis replica have been closed
		}
		n := min(1+p.rng.IntN(3), len(c.keys))
		for _, key := range c.keys[:n] {
			if stored, present := p.get(key); present {
				got.values = append(got.values, protocol.Value{Key: key, Stored: stored, Present: true})
			}
		}
		c.keys = c.keys[n:]
		c.ready = append(c.ready, got)
		p.events(4)
	}
}

func (p *simPages) finish(context.Context) (protocol.Head, error) {
	head := protocol.Head(p.source().Head)
	p.events(1)
	if p.began != p.run() {
		return protocol.Head{}, errServerChanged
	}
	return head, nil
}

func (p *simPages) total() int64 { return int64(len(p.redis.Values())) }
func (p *simPages) close()       {}

// arrive passes the first n messages in flight to f.
func (s *sim) arrive(n int, f func(message string)) {
	for range min(n, len(s.network)) {
		m := s.network[0]
		if m.position > s.position() { // the Redis replica does not have it yet
			return
		}
		s.network = s.network[1:]
		f(m.message)
	}
}

// deliver delivers the first n messages in flight as one batch, in a turn.
func (s *sim) deliver(n int) {
	s.arrive(n, func(message string) { s.inbox.push(message) })
	messages, reason := s.applier.inbox.drain()
	if s.faults && len(messages) > 0 {
		switch i, j := s.rng.IntN(len(messages)), s.rng.IntN(len(messages)); s.rng.IntN(20) {
		case 0: // lost
			messages = slices.Delete(messages, i, i+1)
		case 1: // twice
			messages = slices.Insert(messages, j, messages[i])
		case 2: // out of order
			messages[i], messages[j] = messages[j], messages[i]
		}
	}
	if s.broken == "no chain" && len(messages) > 0 && s.applier.synced {
		var c protocol.Commit
		if c.Decode(messages[0]) == nil && c.Head.Epoch == s.applier.watermark.Epoch && c.Head.Version > s.applier.watermark.Version {
			s.applier.watermark.Version, s.applier.watermark.WriteID = c.Version(0)-1, c.Previous
		}
	}
	s.applier.applyMessages(context.Background(), messages)
	if reason != noCatchUp {
		s.applier.resync(context.Background(), reason)
	}
}

// play runs a schedule, ends the faults and checks convergence.
func (s *sim) play() {
	ctx := context.Background()
	for range 60 {
		s.clock = s.clock.Add(time.Duration(s.rng.IntN(120)) * time.Millisecond)
		s.events(4)
		s.turns.take(func(*applier) {
			switch n := s.rng.IntN(10); {
			case n < 6:
				s.deliver(1 + s.rng.IntN(8))
			case n < 8:
				_ = s.applier.catchUp(ctx, catchUpMiss)
			default:
				if s.applier.probe(ctx) {
					if s.live {
						s.fail("a subscription that delivers everything was reported as silent")
					}
					s.log("silent: reconnecting")
					s.network = nil
					s.inbox.requestCatchUp(catchUpSubscribed)
				}
			}
			s.applier.serveFile()
			if s.rng.IntN(100) == 0 {
				s.log("an audit requests a snapshot")
				s.applier.requestSnapshot(snapshotAudit)
			}
		})
		s.save()
		if s.restarts && s.rng.IntN(20) == 0 || s.restarts && s.seen != s.redis.History() && s.rng.IntN(3) == 0 {
			s.restart(ctx)
		}
		s.seen = s.redis.History()
		s.noteSync()
		s.checkDigest()
		s.answers()
		s.follow()
		if s.failed != "" {
			return
		}
	}
	for range s.rng.IntN(30) { // a last burst of writes, whose messages are lost
		s.write()
	}
	s.faults, s.calm, s.network, s.relay = false, true, nil, false
	_, _ = s.applier.inbox.drain()
	for range 16 { // the first probe may wait for the channel; on a slow link, log steps have to shrink and snapshots are repeated
		s.clock = s.clock.Add(time.Second)
		s.applier.probe(ctx)
	}
	s.answers()
	s.followToTheEnd()
	if !s.applier.synced || s.applier.watermark != protocol.Head(s.redis.Head()) {
		s.fail("no convergence: at %+v synced=%v, Redis at %+v", s.applier.watermark, s.applier.synced, s.redis.Head())
	}
	s.checkDigest()
	s.converged()
}

// converged checks P1: memory holds the state of Redis, or a part of it when the store is too small.
func (s *sim) converged() {
	for i := range simKeys {
		key := string(rune('a' + i))
		e, found := s.applier.store.Get([]byte(key))
		stored, present := s.redis.Get(key)
		switch {
		case found == store.Absent && present, found == store.Hit && !present:
			s.fail("%s is %v at the end, Redis has it: %v", key, found, present)
		case found == store.Hit:
			if written, rec, err := protocol.DecodeStored(stored); err != nil || rec.Value != e.Value || written.VersionIn(e.Epoch) != e.Version {
				s.fail("%s is version %d at the end, Redis has %+v, %v", key, e.Version, written, err)
			}
		}
	}
}

// A subscription that died at a failover is detected with the next write, also when the snapshot after the failover was
// repeated: versions that were received before the rollback must not count as delivered.
func TestRolledBackVersionsDoNotCountAsDelivered(t *testing.T) {
	for _, fails := range []int{0, 1} {
		s, end := newSim(1, "")
		defer end()
		s.faults, s.calm, s.live, s.relay, s.link = false, true, false, false, math.MaxInt64
		src := &failing{source: s}
		s.applier.source = src
		commit := func() string {
			w := set("a", "x")
			return s.redis.Commit(model.Write{Key: "a", Frame: protocol.AppendFrame(nil, &w, s.clock)})
		}
		probe := func() (silent bool) {
			for range 3 {
				s.clock = s.clock.Add(time.Second)
				silent = s.applier.probe(t.Context()) || silent
			}
			return silent
		}
		probe()
		for before := s.redis.Head(); s.redis.Head().Version >= before.Version; s.redis.Failover() {
			for range 6 {
				s.publish(commit())
				s.deliver(1)
			}
			before = s.redis.Head()
		}
		src.opens = fails
		probe()
		if at := s.applier.watermark; at != protocol.Head(s.redis.Head()) {
			t.Fatalf("%d snapshots failed: at %+v after the failover", fails, at)
		}
		_ = commit() // its message is lost, and a message of another stack does not prove that the channel works
		w, now := set("a", "x"), s.redis.Head().Version
		s.inbox.push(string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), now+100)) +
			strings.Repeat("\x00", 16) + string(protocol.AppendFrame(nil, &w, s.clock)))
		if !probe() {
			t.Errorf("%d snapshots failed: the silent channel was not detected", fails)
		}
	}
}

// A message that arrives between the last log step of a snapshot and its end counts as delivered: a live subscription is not
// reported as silent.
func TestMessageAtTheEndOfASnapshot(t *testing.T) {
	s, end := newSim(1, "")
	defer end()
	s.faults, s.calm, s.live, s.relay, s.link = false, true, true, false, math.MaxInt64
	commit := func() {
		w := set("a", "x")
		s.publish(s.redis.Commit(model.Write{Key: "a", Frame: protocol.AppendFrame(nil, &w, s.clock)}))
	}
	commit()
	s.applier.source = &lateSource{source: s, after: commit}
	s.applier.resync(t.Context(), catchUpStart)
	s.deliver(0)
	if at := s.applier.watermark; at != protocol.Head(s.redis.Head()) || at.Version != 2 {
		t.Fatalf("at %+v, Redis at %+v", at, s.redis.Head())
	}
	for range 4 {
		s.clock = s.clock.Add(time.Second)
		if s.applier.probe(t.Context()) {
			t.Fatal("the live subscription was reported as silent")
		}
	}
}

// failing is a source whose open fails a number of times.
type failing struct {
	source
	opens int
}

func (f *failing) open(ctx context.Context) (pages, error) {
	if f.opens > 0 {
		f.opens--
		return nil, errSim
	}
	return f.source.open(ctx)
}

// Decoded messages are not kept alive.
func TestDecodedMessagesAreReleased(t *testing.T) {
	s, end := newSim(1, "")
	defer end()
	s.faults, s.calm, s.live, s.relay, s.link = false, true, false, false, math.MaxInt64
	_ = s.applier.catchUp(t.Context(), catchUpStart)
	for _, writes := range []int{5, 1} {
		var commit []model.Write
		for range writes {
			w := set("a", "x")
			commit = append(commit, model.Write{Key: "a", Frame: protocol.AppendFrame(nil, &w, s.clock)})
		}
		s.publish(s.redis.Commit(commit...))
	}
	s.deliver(2)
	records := s.applier.decoded.Records
	if cap(records) < 5 {
		t.Fatalf("%d records were decoded", cap(records))
	}
	for i, r := range records[:cap(records)] {
		if r != (protocol.Record{}) {
			t.Errorf("record %d is still %+v", i, r)
		}
	}
}

func simulate(seed uint64, broken string) (failed string, trace []string) {
	s, end := newSim(seed, broken)
	defer end()
	s.play()
	digestsCompared.Add(int64(s.compared))
	return s.failed, s.trace
}

// digestsCompared counts the digests that all schedules have compared.
var digestsCompared atomic.Int64

func TestSimulation(t *testing.T) {
	first, count := uint64(time.Now().UnixNano()), *simCount
	if *simSeed != 0 {
		first, count = *simSeed, 1
	}
	for i := range count {
		seed := first + uint64(i)
		if failed, trace := simulate(seed, ""); failed != "" {
			t.Fatalf("%s\nschedule %d, replay with -sim.seed=%d:\n%s", failed, i, seed, strings.Join(trace, "\n"))
		}
	}
	if n := digestsCompared.Load(); n == 0 {
		t.Error("no digest was compared with the state of Redis")
	} else {
		t.Logf("%d digests were compared with the state of Redis", n)
	}
	if n := pagesFollowed.Load(); n == 0 {
		t.Error("no follower began with pages")
	} else {
		t.Logf("%d followers began with pages", n)
	}
}

// The simulation finds each of the protocols that are broken on purpose.
func TestSimulationFindsBrokenProtocols(t *testing.T) {
	for _, broken := range []string{"two-step", "skip", "no chain", "no check ahead", "late page", "any connection", "any epoch", "no shrinking", "no lag tolerance", "part too large",
		"file at its end", "file without ahead", "file of another history", "file that is complete at once", "feed without ahead", "feed pages without ahead", "feed pages unchecked"} {
		t.Run(broken, func(t *testing.T) {
			for seed := range uint64(20_000) {
				if failed, _ := simulate(seed, broken); failed != "" {
					t.Logf("found by schedule %d: %s", seed, failed)
					return
				}
			}
			t.Error("20,000 schedules did not find it")
		})
	}
}
