package cache

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// source is where a replica reads from: one Redis node. All methods block until ctx is done at
// most.
type source interface {
	// step returns one instant of the shard: the log after w, and the values of missed keys.
	step(ctx context.Context, w, ahead Head, missed []string) (step, error)
	// open prepares a snapshot of all values; it begins with the first page. The caller closes the
	// pages.
	open(ctx context.Context) (pages, error)
}

// pages iterates over all values, on one connection to one run of one server.
type pages interface {
	// next returns the next values and whether there are more. A key may come more than once, and
	// a page may be empty. With ahead, the page after this one is read in the background, and the
	// next call returns what was read then. Without, no read is under way when next returns, and
	// every value is as it was at some instant after the call before.
	next(ctx context.Context, ahead bool) (values []lookup, more bool, err error)
	// finish reports whether the pages together were all the values: the server that answered the
	// first was still the one that answered the last. It returns the head of that server, after the
	// last page.
	finish(ctx context.Context) (Head, error)
	// total estimates the number of values in all pages.
	total() int64
	close()
}

// step is one instant of a shard.
type step struct {
	head    Head
	at      uint64 // write id of the log's entry at the watermark; 0 when the log has none
	ahead   uint64 // the same at the newest write that the store may hold
	entries []logEntry
	values  []lookup // of the keys in entries, each once
	missed  []lookup // of the missed keys, in their order
}

// logEntry is a commit in the log.
type logEntry struct {
	version  uint64 // after it
	writeID  uint64
	previous uint64 // write id of the commit before
	writes   int    // 0 when the entry is not one of ours
}

// lookup is the value of a key, as stored, or its absence.
type lookup struct {
	key     string
	stored  string
	present bool
	skipped bool // not read: the step was full
}

// Bounds of a step, a tenth of a second of work for Redis at the most.
const (
	stepWrites = 8000    // and the rest of a commit
	stepBytes  = 2 << 20 // of values, and the rest of a commit
	pageKeys   = 1000    // COUNT of a SCAN
	pageBytes  = 2 << 20 // of the values of a page, about
	firstMean  = pageBytes / 8
)

//go:embed lua/step.lua
var stepLua string

var stepScript = redis.NewScript(stepLua)

// redisSource reads from the Redis node that holds the shard.
type redisSource struct {
	client redis.UniversalClient
	keys   keys
	mean   int // size of a value, in bytes, as the pages have shown so far; 0 before the first
}

func (s *redisSource) step(ctx context.Context, w, ahead Head, missed []string) (step, error) {
	n, err := node(ctx, s.client, s.keys.seq)
	if err != nil {
		return step{}, fmt.Errorf("find the node: %w", err)
	}
	st, err := runStep(ctx, n, s.keys, w, ahead, missed)
	if err != nil {
		return step{}, fmt.Errorf("read the log: %w", err)
	}
	return st, nil
}

// runStep runs step.lua on a node or on one connection.
func runStep(ctx context.Context, on redis.Scripter, k keys, w, ahead Head, missed []string) (step, error) {
	args := make([]any, 0, 5+len(missed))
	args = append(args, strconv.FormatUint(w.Version, 10), strconv.FormatUint(ahead.Version, 10), stepWrites, stepBytes, k.prefix)
	for _, key := range missed {
		args = append(args, key)
	}
	reply, err := stepScript.RunRO(ctx, on, []string{k.epoch, k.log}, args...).Slice()
	if err != nil {
		return step{}, err
	}
	return decodeStep(reply, missed)
}

// decodeStep reads the reply of step.lua.
func decodeStep(reply []any, missed []string) (st step, err error) {
	var r replyReader
	if len(reply) != 8 {
		return st, fmt.Errorf("a reply of %d parts, want 8", len(reply))
	}
	st.head = Head{Epoch: r.id(reply[0]), Version: r.number(reply[1]), WriteID: r.id(reply[2])}
	st.at, st.ahead = r.id(reply[3]), r.id(reply[4])
	entries := r.list(reply[5], 2)
	st.entries = make([]logEntry, 0, len(entries)/2)
	for ; len(entries) > 0; entries = entries[2:] {
		st.entries = append(st.entries, r.entry(entries[0], entries[1]))
	}
	values := r.list(reply[6], 2)
	st.values = make([]lookup, 0, len(values)/2)
	for ; len(values) > 0; values = values[2:] {
		st.values = append(st.values, r.lookup(r.text(values[0]), values[1]))
	}
	found := r.list(reply[7], 1)
	if len(found) != len(missed) {
		return st, fmt.Errorf("%d values for %d keys", len(found), len(missed))
	}
	for i, key := range missed {
		st.missed = append(st.missed, r.lookup(key, found[i]))
	}
	return st, r.err
}

// replyReader turns the parts of a script's reply into what they should be and keeps the first
// error.
type replyReader struct{ err error }

func (r *replyReader) fail(v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%.60q in the reply where %s should be", fmt.Sprint(v), want)
	}
}

func (r *replyReader) text(v any) string {
	s, ok := v.(string)
	if !ok {
		r.fail(v, "a string")
	}
	return s
}

func (r *replyReader) id(v any) uint64 {
	if s := r.text(v); len(s) == 8 {
		return uint64At(s, 0)
	}
	return 0
}

func (r *replyReader) number(v any) uint64 {
	n, err := strconv.ParseUint(r.text(v), 10, 64)
	if err != nil {
		r.fail(v, "a version")
	}
	return n
}

// list returns a list whose length is a multiple of n.
func (r *replyReader) list(v any, n int) []any {
	l, ok := v.([]any)
	if !ok || len(l)%n != 0 {
		r.fail(v, "a list")
		return nil
	}
	return l
}

// entry reads an entry of the log, which is packed as write.lua has it.
func (r *replyReader) entry(version, packed any) logEntry {
	e := logEntry{version: r.number(version)}
	p := r.text(packed)
	if len(p) > 16 {
		e.writeID, e.previous = uint64At(p, 0), uint64At(p, 8)
		e.writes, _ = countLogged(p[16:])
	}
	return e
}

func (r *replyReader) lookup(key string, v any) lookup {
	switch v := v.(type) {
	case nil:
		return lookup{key: key}
	case string:
		return lookup{key: key, stored: v, present: true}
	case int64:
		return lookup{key: key, skipped: true}
	}
	r.fail(v, "a value")
	return lookup{}
}

func (s *redisSource) open(ctx context.Context) (pages, error) {
	n, err := node(ctx, s.client, s.keys.seq)
	if err != nil {
		return nil, fmt.Errorf("find the node: %w", err)
	}
	s.mean = cmp.Or(s.mean, firstMean)
	p := &redisPages{conn: n.Conn(), shard: s.keys, mean: &s.mean}
	if p.run, err = runID(ctx, p.conn); err != nil {
		p.close()
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	size, err := p.conn.DBSize(ctx).Result()
	if err != nil {
		p.close()
		return nil, fmt.Errorf("count the keys: %w", err)
	}
	p.size = max(size-3, 0) // seq, epoch, log
	return p, nil
}

// redisPages is a SCAN on one connection that is never redialed on the quiet: the client has no
// retries, and a connection that breaks fails the snapshot. A cursor means nothing to another run
// of the server: continued over a restart it missed a quarter of the keys.
type redisPages struct {
	conn     *redis.Conn
	shard    keys
	run      string
	size     int64
	begun    bool
	cursor   uint64
	keys     []string  // that are to be read
	mean     *int      // the source's
	underway chan page // a page that is being read ahead, else nil
}

type page struct {
	values []lookup
	more   bool
	err    error
}

func (p *redisPages) next(ctx context.Context, ahead bool) ([]lookup, bool, error) {
	var got page
	if p.underway != nil {
		got = <-p.underway // bounded by the context that the read was begun with
		p.underway = nil
	} else {
		got = p.read(ctx)
	}
	if ahead && got.more && got.err == nil {
		p.underway = make(chan page, 1)
		go func() { p.underway <- p.read(ctx) }()
	}
	return got.values, got.more, got.err
}

// read asks for a page's values and, when it is the last of a SCAN's keys, for the keys of the page
// after it, in one round trip.
func (p *redisPages) read(ctx context.Context) page {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if !p.begun {
		if err := p.scan(p.conn.Scan(ctx, 0, p.shard.pattern(), pageKeys)); err != nil {
			return page{err: err}
		}
		p.begun = true
	}
	var get *redis.SliceCmd
	var scan *redis.ScanCmd
	keys := p.keys[:min(len(p.keys), max(1, pageBytes / *p.mean))]
	_, err := p.conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		if len(keys) > 0 {
			get = pipe.MGet(ctx, keys...)
		}
		if len(keys) == len(p.keys) && p.cursor != 0 {
			scan = pipe.Scan(ctx, p.cursor, p.shard.pattern(), pageKeys)
		}
		return nil
	})
	if err != nil {
		*p.mean = min(2**p.mean, pageBytes) // should it have been too much for the link, the next load asks for less
		return page{err: fmt.Errorf("read a page: %w", err)}
	}
	p.keys = p.keys[len(keys):]
	if scan != nil {
		if err := p.scan(scan); err != nil {
			return page{err: err}
		}
	}
	var values []lookup
	if get != nil {
		size := 0
		values = make([]lookup, 0, len(keys))
		for i, v := range get.Val() {
			if s, ok := v.(string); ok { // else deleted since the SCAN, or not a string
				values = append(values, lookup{key: strings.TrimPrefix(keys[i], p.shard.prefix), stored: s, present: true})
				size += len(s)
			}
		}
		*p.mean = max(1, (*p.mean+size/len(keys))/2)
	}
	return page{values: values, more: len(p.keys) > 0 || p.cursor != 0}
}

// scan takes the keys and the cursor of one SCAN.
func (p *redisPages) scan(cmd *redis.ScanCmd) (err error) {
	if p.keys, p.cursor, err = cmd.Result(); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	return nil
}

var errServerChanged = errors.New("the server was restarted or replaced in the middle of the snapshot")

func (p *redisPages) finish(ctx context.Context) (Head, error) {
	st, err := runStep(ctx, p.conn, p.shard, endOfLog, Head{}, nil)
	if err != nil {
		return Head{}, fmt.Errorf("read the head: %w", err)
	}
	run, err := runID(ctx, p.conn) // last: it vouches for all that was read before
	if err != nil {
		return Head{}, fmt.Errorf("identify the server: %w", err)
	}
	if run != p.run {
		return Head{}, errServerChanged
	}
	return st.head, nil
}

func (p *redisPages) total() int64 { return p.size }

func (p *redisPages) close() {
	if p.underway != nil {
		<-p.underway
	}
	_ = p.conn.Close() // goes back to the pool
}

// runID returns what identifies one run of the server. The embedded Redis of the tests and of the
// stack without Redis has no such section; it cannot be restarted under a connection either.
func runID(ctx context.Context, conn *redis.Conn) (string, error) {
	info, err := conn.Info(ctx, "server").Result()
	if err != nil && strings.Contains(err.Error(), "not supported") {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", nil
}

// stepTimeout bounds one round trip of a replica.
const stepTimeout = time.Second
