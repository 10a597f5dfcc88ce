package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/history"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

const (
	seqKey      = "{posts:0}:seq"
	epochKey    = "{posts:0}:epoch"
	logKey      = "{posts:0}:log"
	valuePrefix = "{posts:0}:p:"

	readTimeout = 500 * time.Millisecond // bounds a read
	patience    = 30 * time.Second       // bounds each wait of a test
)

// world is a Redis, a publisher and some replicas, each behind its own proxy, with the history of their
// operations.
type world struct {
	t         testing.TB
	setup     setup
	redis     *redistest.Server
	direct    *redis.Client // connection to redis that bypasses the proxies
	history   *history.History
	uplink    *faultnet.Proxy // between the publisher and Redis
	publisher *publisher.Publisher
	readers   []*follower

	serial  atomic.Uint64 // makes every value unique
	keys    sync.Map      // every key that was ever written
	origins sync.Map      // value -> protocol.Token that it was written as, once somebody knows
	acked   atomic.Int64  // writes that took place
	failed  atomic.Int64  // writes that Redis did not answer
	unknown atomic.Int64  // those of them that may have taken place
	read    atomic.Int64  // reads that were answered
	unread  atomic.Int64  // reads that got an error
}

// setup configures a world. The zero value has three replicas with the defaults.
type setup struct {
	replicas  int                     // number of replicas; 0 for three, negative for none
	redis     []redistest.Option      // options of the server that newWorld starts
	server    *redistest.Server       // existing server to use instead of a new one
	replica   func(*replica.Config)   // changes the configuration of each replica
	publisher func(*publisher.Config) // changes the configuration of the publisher
	nodes     func(*redisnode.Config) // changes the configuration of all Finders
	content   func(string) []byte     // extracts the recorded content from a value; default: all of it
}

// view is the read side of a replica. Tests of the checks replace it by a broken one.
type view interface {
	Get(key []byte) (store.Entry, store.Lookup)
	Fetch(ctx context.Context, key string, min replica.Min) (store.Entry, bool, error)
}

// follower is a replica with its link to Redis.
type follower struct {
	name    string
	link    *faultnet.Proxy
	channel *faultnet.Selection // the subscriptions of link
	data    *faultnet.Selection // the other connections of link
	replica *replica.Replica
	view    view
	metrics *prometheus.Registry
	stop    func() // stops the replica; may be called several times
}

// newWorld starts a world and waits until its replicas are ready. It is stopped when the test ends.
func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	redistest.Require(t)
	if s.replicas == 0 {
		s.replicas = 3
	}
	if s.nodes == nil {
		s.nodes = func(*redisnode.Config) {}
	}
	if s.content == nil {
		s.content = func(value string) []byte { return []byte(value) }
	}
	if s.server == nil {
		s.server = redistest.Start(t, s.redis...)
	}
	w := &world{t: t, setup: s, redis: s.server, direct: s.server.Client(t), history: history.New()}
	// During a catch-up a replica serves new values before it moves its watermark.
	w.history.KeysRunAhead()
	w.uplink = faultnet.NewProxy(t, w.redis.Addr())
	w.publisher = w.newPublisher(w.uplink)
	for range s.replicas {
		w.addReader()
	}
	w.ready(w.readers...)
	return w
}

func (w *world) nodes(addr string) *redisnode.Finder { return nodetest.New(w.t, addr, w.setup.nodes) }

func (w *world) newPublisher(link *faultnet.Proxy) *publisher.Publisher {
	w.t.Helper()
	cfg := publisher.Config{Redis: w.nodes(link.Addr())}
	if w.setup.publisher != nil {
		w.setup.publisher(&cfg)
	}
	p, err := publisher.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// addReader starts a replica behind its own link, which options configure. It does not wait for readiness.
func (w *world) addReader(options ...func(*follower)) *follower {
	w.t.Helper()
	r := &follower{name: fmt.Sprint("reader-", len(w.readers)+1), link: faultnet.NewProxy(w.t, w.redis.Addr()), metrics: prometheus.NewRegistry()}
	subscribes := faultnet.Contains("subscribe")
	r.channel, r.data = r.link.Only(subscribes), r.link.Only(faultnet.Not(subscribes))
	for _, o := range options {
		o(r)
	}
	cfg := replica.Config{
		Redis:      w.nodes(r.link.Addr()),
		Logger:     slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("reader", r.name),
		Registerer: r.metrics,
	}
	if w.setup.replica != nil {
		w.setup.replica(&cfg)
	}
	var err error
	if r.replica, err = replica.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	r.view = r.replica
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.replica.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		r.replica.Close()
	})
	w.t.Cleanup(r.stop)
	w.readers = append(w.readers, r)
	return r
}

// ready waits until the readers are ready.
func (w *world) ready(readers ...*follower) {
	w.t.Helper()
	eventually.Nil(w.t, func() error {
		for _, r := range readers {
			if s := r.replica.Status(); !s.Ready {
				return fmt.Errorf("%s is not ready: %+v", r.name, s)
			}
		}
		return nil
	})
}

// await waits until r serves the write with this token, like a read with X-Min-Version.
func (w *world) await(r *follower, token protocol.Token) {
	w.t.Helper()
	if r.replica.WaitFor(w.t.Context(), replica.AtLeast(token)) {
		return
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, _, err := r.replica.Fetch(ctx, "", replica.AtLeast(token)); err != nil {
		w.t.Fatalf("%s does not reach %v: %v", r.name, token, err)
	}
}

// moveTo redirects all links to another server and cuts the current connections.
func (w *world) moveTo(server *redistest.Server) {
	w.redis, w.direct = server, server.Client(w.t)
	for _, link := range w.links() {
		link.SetTarget(server.Addr())
		link.Cut()
	}
}

// links returns the proxies of the publisher and of the readers.
func (w *world) links() []*faultnet.Proxy {
	links := []*faultnet.Proxy{w.uplink}
	for _, r := range w.readers {
		links = append(links, r.link)
	}
	return links
}

// value returns a unique value.
func (w *world) value(key string, padding int) []byte {
	return fmt.Appendf(nil, "%s #%d %s", key, w.serial.Add(1), strings.Repeat(".", padding))
}

// set returns a set of key to a unique value with a unique tag.
func (w *world) set(key string, padding int) protocol.Write {
	value := w.value(key, padding)
	var tag protocol.Tag
	binary.BigEndian.PutUint64(tag[:], w.serial.Load())
	return protocol.Write{Op: protocol.Set, Key: key, Value: value, Tag: tag}
}

func (w *world) remove(key string) protocol.Write {
	return protocol.Write{Op: protocol.Delete, Key: key}
}

// write performs writes through the world's publisher and records them.
func (w *world) write(writes ...protocol.Write) ([]publisher.Result, error) {
	return w.writeBy(w.publisher, writes...)
}

func (w *world) writeBy(p *publisher.Publisher, writes ...protocol.Write) ([]publisher.Result, error) {
	records := make([]*history.Write, len(writes))
	for i, wr := range writes {
		w.keys.Store(wr.Key, true)
		if wr.Op == protocol.Set {
			records[i] = w.history.Write(wr.Key, wr.Value)
		} else {
			records[i] = w.history.Delete(wr.Key)
		}
	}
	results, err := p.Write(context.Background(), writes...)
	for i, record := range records {
		switch {
		case errors.Is(err, publisher.ErrNotWritten):
			w.failed.Add(1)
			record.Refused()
		case err != nil:
			w.failed.Add(1)
			w.unknown.Add(1)
			record.Unknown()
		case results[i].Outcome == protocol.NotFound || results[i].Outcome == protocol.ConditionFailed:
			record.Refused()
		default:
			w.acked.Add(1)
			if writes[i].Op == protocol.Set {
				w.origins.Store(string(writes[i].Value), results[i].Token)
			}
			record.Ack(results[i].Token.Epoch, results[i].Token.Version)
		}
	}
	return results, err
}

// mustWrite is write, and stops the test on errors.
func (w *world) mustWrite(writes ...protocol.Write) []publisher.Result {
	w.t.Helper()
	results, err := w.write(writes...)
	if err != nil {
		w.t.Fatal(err)
	}
	return results
}

// fill writes n keys, prefix0 to prefix<n-1>, in batches.
func (w *world) fill(prefix string, n, padding int) {
	w.t.Helper()
	for from := 0; from < n; from += 500 {
		var batch []protocol.Write
		for i := from; i < min(n, from+500); i++ {
			batch = append(batch, w.set(fmt.Sprint(prefix, i), padding))
		}
		w.mustWrite(batch...)
	}
}

// observe reads a key like a reader, from memory or else from Redis, and records the result.
func (w *world) observe(r *follower, key string) (value string, present bool, err error) {
	record := w.history.Read(r.name, key)
	e, found := r.view.Get([]byte(key))
	present = found == store.Hit
	if found == store.Miss {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		defer cancel()
		if e, present, err = r.view.Fetch(ctx, key, replica.Min{}); err != nil {
			w.unread.Add(1)
			record.Unavailable()
			return "", false, err
		}
	}
	w.read.Add(1)
	if !present {
		record.Absent()
		return "", false, nil
	}
	content := w.setup.content(e.Value)
	if at, ok := w.origin(e, content); ok {
		record.Value(at.Epoch, at.Version, content)
	} else {
		record.Unavailable()
	}
	return e.Value, true, nil
}

// origin returns the token of the write of a value. A replica has no version for a value that outlived its
// epoch. Then the token is known only if the write was acknowledged or the value was observed before.
func (w *world) origin(e store.Entry, content []byte) (protocol.Token, bool) {
	if e.Version != 0 {
		w.origins.LoadOrStore(string(content), protocol.Token{Epoch: e.Epoch, Version: e.Version})
		return protocol.Token{Epoch: e.Epoch, Version: e.Version}, true
	}
	at, ok := w.origins.Load(string(content))
	if !ok {
		return protocol.Token{}, false
	}
	return at.(protocol.Token), true
}

// barrier records the version that a replica reports as applied.
func (w *world) barrier(r *follower) {
	if s := r.replica.Status(); s.Synced {
		w.history.ReaderReached(r.name, s.Applied.Epoch, s.Applied.Version)
	}
}

// head returns the head of the log in Redis.
func (w *world) head() (protocol.Head, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var epoch *redis.StringCmd
	var top *redis.XMessageSliceCmd
	_, err := w.direct.TxPipelined(ctx, func(p redis.Pipeliner) error {
		epoch, top = p.Get(ctx, epochKey), p.XRevRangeN(ctx, logKey, "+", "-", 1)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return protocol.Head{}, err
	}
	var h protocol.Head
	if e := epoch.Val(); len(e) == 8 {
		h.Epoch = binary.BigEndian.Uint64([]byte(e))
	}
	if len(top.Val()) > 0 {
		entry := top.Val()[0]
		h.WriteID = writeID(entry)
		if _, err := fmt.Sscanf(entry.ID, "%d-", &h.Version); err != nil || h.WriteID == 0 {
			return h, fmt.Errorf("entry %s of the log is %q", entry.ID, fmt.Sprint(entry.Values))
		}
	}
	return h, nil
}

// writeID returns the write id of a log entry, the first 8 bytes of its field e, or 0.
func writeID(entry redis.XMessage) uint64 {
	if e, _ := entry.Values["e"].(string); len(e) > 8 {
		return binary.BigEndian.Uint64([]byte(e))
	}
	return 0
}

// mustHead waits until Redis answers and returns the head of the log.
func (w *world) mustHead() (h protocol.Head) {
	w.t.Helper()
	eventually.Nil(w.t, func() (err error) {
		h, err = w.head()
		return err
	})
	return h
}

// recovered waits until readers, by default all, are healthy and have every write that Redis had at the time
// of the call. It logs the time since since.
func (w *world) recovered(fault string, since time.Time, readers ...*follower) {
	w.t.Helper()
	if len(readers) == 0 {
		readers = w.readers
	}
	head := w.mustHead()
	eventually.Nil(w.t, func() error {
		for _, r := range readers {
			s := r.replica.Status()
			if s.Applied.Epoch != head.Epoch { // Redis may have begun another epoch since
				now, err := w.head()
				if err != nil || s.Applied.Epoch != now.Epoch {
					return fmt.Errorf("%s is at %+v, Redis at %+v (%v)", r.name, s, now, err)
				}
				head = now
			}
			if s.Applied.Version < head.Version || !s.Synced || !s.Subscribed || s.Degraded {
				return fmt.Errorf("%s is at %+v, Redis was at %+v", r.name, s, head)
			}
			if err := w.inLog(s.Applied); err != nil {
				return fmt.Errorf("%s is at %+v: %w", r.name, s, err)
			}
		}
		return nil
	})
	w.t.Logf("%s: converged in %v", fault, time.Since(since).Round(time.Millisecond))
}

// inLog returns an error if a head is not in the log of Redis: a replica with that head is in a history that
// Redis has lost.
func (w *world) inLog(h protocol.Head) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	id := fmt.Sprintf("%d-0", h.Version)
	entries, err := w.direct.XRange(ctx, logKey, id, id).Result()
	if err != nil {
		return err
	}
	if len(entries) != 1 || writeID(entries[0]) != h.WriteID {
		return fmt.Errorf("the log has %q at %s", fmt.Sprint(entries), id)
	}
	return nil
}

// settled waits until every replica is healthy and has reached the head of the log. No write may be in flight.
func (w *world) settled() {
	w.t.Helper()
	eventually.Nil(w.t, func() error {
		head, err := w.head()
		if err != nil {
			return err
		}
		for _, r := range w.readers {
			if s := r.replica.Status(); s.Applied != head || !s.Ready || !s.Synced || !s.Subscribed || s.Degraded {
				return fmt.Errorf("%s is at %+v, Redis at %+v", r.name, s, head)
			}
		}
		return nil
	})
}

// verify waits for the replicas and checks the whole history for violations of the promises.
func (w *world) verify() {
	w.t.Helper()
	w.settled()
	w.t.Logf("%d writes were acknowledged, %d failed; %d reads were answered, %d failed",
		w.acked.Load(), w.failed.Load(), w.read.Load(), w.unread.Load())
	w.history.Verify(w.t, w.final())
}

// neverFailed fails the test if a read has failed. Use it when the replicas had all values in memory all the
// time.
func (w *world) neverFailed() {
	w.t.Helper()
	if n := w.unread.Load(); n > 0 {
		w.t.Errorf("%d reads failed, although all values were in memory", n)
	}
}

// final returns the state of Redis and of the readers.
func (w *world) final() history.Final {
	w.t.Helper()
	final := history.Final{Redis: history.State{}, Readers: map[string]history.State{}}
	for _, s := range w.stored() {
		content := w.setup.content(s.value)
		w.origins.Store(string(content), s.token)
		final.Redis[s.key] = history.EntryOf(s.token.Epoch, s.token.Version, content)
		w.keys.Store(s.key, true)
	}
	for _, r := range w.readers {
		final.Readers[r.name] = w.contents(r)
		if s := r.replica.Status(); s.Complete && s.Entries != int64(len(final.Redis)) {
			w.t.Errorf("%s has %d entries, Redis %d", r.name, s.Entries, len(final.Redis))
		}
	}
	return final
}

// contents reads every key that was ever written from a reader.
func (w *world) contents(r *follower) history.State {
	w.t.Helper()
	state := history.State{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w.keys.Range(func(k, _ any) bool {
		key := k.(string)
		e, found := r.view.Get([]byte(key))
		present := found == store.Hit
		if found == store.Miss {
			var err error
			if e, present, err = r.view.Fetch(ctx, key, replica.Min{}); err != nil {
				w.t.Errorf("%s failed to read %q at the end: %v", r.name, key, err)
				return true
			}
		}
		if !present {
			return true
		}
		content := w.setup.content(e.Value)
		at, _ := w.origin(e, content)
		state[key] = history.EntryOf(at.Epoch, at.Version, content)
		return true
	})
	return state
}

// stored is a value in Redis.
type stored struct {
	key, value string
	token      protocol.Token
}

// stored returns every value in Redis.
func (w *world) stored() []stored {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var names []string
	for scan := w.direct.Scan(ctx, 0, valuePrefix+"*", 1000).Iterator(); ; {
		if !scan.Next(ctx) {
			if err := scan.Err(); err != nil {
				w.t.Fatal(err)
			}
			break
		}
		names = append(names, scan.Val())
	}
	slices.Sort(names)
	var all []stored
	for chunk := range slices.Chunk(slices.Compact(names), 1000) {
		values, err := w.direct.MGet(ctx, chunk...).Result()
		if err != nil {
			w.t.Fatal(err)
		}
		for i, v := range values {
			s, err := parseStored(fmt.Sprint(v))
			if err != nil || valuePrefix+s.key != chunk[i] {
				w.t.Fatalf("%s holds %.80q: %v", chunk[i], v, err)
			}
			all = append(all, s)
		}
	}
	return all
}

// parseStored decodes a stored value, in the layout of docs/protocol.md: a stamp of 24 bytes, then a frame with
// a header of 32 bytes.
func parseStored(s string) (stored, error) {
	const stamp, header = 24, 32
	if len(s) < stamp+header {
		return stored{}, fmt.Errorf("%d bytes", len(s))
	}
	number := func(at int) uint64 { return binary.BigEndian.Uint64([]byte(s[at : at+8])) }
	text := s[stamp+header:]
	n := int(binary.BigEndian.Uint16([]byte(s[stamp+2 : stamp+4])))
	if n > len(text) {
		return stored{}, fmt.Errorf("a key of %d bytes in %d", n, len(text))
	}
	return stored{key: text[:n], value: text[n:], token: protocol.Token{Epoch: number(0), Version: number(8)}}, nil
}

// count returns the sum of a replica's metric over all series, or over those with the given value of their
// first label.
func (r *follower) count(t testing.TB, name string, label ...string) (sum float64) {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if len(label) > 0 && !slices.Contains(label, m.GetLabel()[0].GetValue()) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return sum
	}
	return 0
}

// infoField returns the value of a field in the reply of INFO.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
