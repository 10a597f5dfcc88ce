package replica

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
)

// pages iterates over all values, on connections to one run of one server.
type pages interface {
	// next returns the next page, or an empty one when none arrives within followPause. With prefetch, it also requests
	// the pages after it. Without prefetch, it requests a page only when none is in flight. So a caller that repeats
	// next without prefetch until the page is idle has all values that have been read, and every later page is from a
	// later instant.
	next(ctx context.Context, prefetch bool) (page, error)
	// finish verifies that the server that answered the first request is still the one that answered the last, so
	// that the pages together have all values. It returns the head of that server after the last page.
	finish(ctx context.Context) (protocol.Head, error)
	// total estimates the number of values in all pages.
	total() int64
	close()
}

// page is a part of a snapshot: values from one instant. It may be empty. A key may occur again, on the same page or on
// another.
type page struct {
	values []protocol.Value
	more   bool // more pages follow
	idle   bool // no page is in flight
}

// Bounds of a page, which costs Redis a tenth of a second at most.
const (
	scanKeys       = 1000                // COUNT of a SCAN
	pageBytes      = 2 << 20 / pageReads // target size of a page's values, in bytes
	pageLeast      = 16 << 10            // minimum of the target size, after failed snapshots
	firstMeanValue = pageBytes / 8       // assumed mean size of a value before the first page, in bytes

	pageReads = 2 // pages in flight at a time, each on a connection of its own

	// keysAhead and pagesAhead bound the prefetch of keys and of their values, in pages.
	keysAhead  = 4
	pagesAhead = 6
)

func (s *redisSource) open(ctx context.Context) (pages, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return nil, err
	}
	s.waited.Store(0)
	s.meanValue.CompareAndSwap(0, firstMeanValue)
	p := &redisPages{
		scanning: n.Conn(), shard: s.keys, mean: &s.meanValue, limit: &s.pageLimit, rate: &s.scanRate, waited: &s.waited,
		checkRole: func(ctx context.Context) error { return s.redis.CheckRole(ctx, n) },
		requested: make(chan struct{}, 1+pagesAhead), read: make(chan []protocol.Value, 1+pagesAhead),
	}
	for i := range p.reading {
		p.reading[i] = n.Conn()
	}
	if p.run, err = runID(ctx, p.scanning); err != nil {
		p.close()
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	for _, check := range []func(context.Context) error{p.checkRole, p.checkMigration} {
		if err := check(ctx); err != nil {
			p.close()
			return nil, err
		}
	}
	size, err := p.scanning.DBSize(ctx).Result()
	if err != nil {
		p.close()
		return nil, fmt.Errorf("count the keys: %w", err)
	}
	p.size = max(size-3, 0) // seq, epoch, log
	return p, nil
}

// redisPages is a SCAN on one connection, and reads of the values of its keys on others, so that Redis works on one
// request while the reply to another is received. The values of a key are always read on the same connection, so that of
// two reads the later one also returns later. No connection reconnects by itself: the client has no retries, and a broken
// connection fails the snapshot. A cursor is worthless for another run of the server: continued over a restart, it missed a
// quarter of the keys.
type redisPages struct {
	scanning *redis.Conn
	reading  [pageReads]*redis.Conn

	shard     protocol.Keys
	run       string // run id of the server
	size      int64
	mean      *atomic.Int64 // meanValue of the source
	limit     *byteBound    // pageLimit of the source
	rate      *atomic.Int64 // scanRate of the source
	waited    *atomic.Int64 // waited of the source
	checkRole func(ctx context.Context) error

	stop      context.CancelFunc    // nil before the first page
	requested chan struct{}         // has a token for each page that may be read; never closed
	read      chan []protocol.Value // closed at the end and after an error
	err       error                 // error of the reads; valid once read is closed
	inFlight  int                   // pages that were requested and not received
}

func (p *redisPages) next(ctx context.Context, prefetch bool) (page, error) {
	if p.stop == nil {
		p.start(ctx)
	}
	wanted := 1
	if prefetch {
		wanted += pagesAhead
	} else {
		p.withdraw()
	}
	for ; p.inFlight < wanted; p.inFlight++ {
		p.requested <- struct{}{}
	}
	pause := time.NewTimer(followPause) // a SCAN may run for long before it finds keys of this shard
	defer pause.Stop()
	select {
	case values, more := <-p.read:
		if !more {
			return page{idle: true}, p.err
		}
		p.inFlight--
		for i := range values {
			if err := protocol.CheckFormat(values[i].Stored); err != nil {
				return page{}, err
			}
		}
		return page{values: values, more: true, idle: p.inFlight == 0}, nil
	case <-pause.C:
		if !prefetch {
			p.withdraw()
		}
		return page{more: true, idle: p.inFlight == 0}, nil
	}
}

// withdraw withdraws the requests for pages whose read has not begun.
func (p *redisPages) withdraw() {
	for {
		select {
		case <-p.requested:
			p.inFlight--
		default:
			return
		}
	}
}

// start begins the SCAN and the reads of requested pages. They end when ctx is done.
func (p *redisPages) start(ctx context.Context) {
	ctx, p.stop = context.WithCancel(ctx)
	work, ctx := errgroup.WithContext(ctx)
	var scanned [len(p.reading)]chan []string
	for i, conn := range p.reading {
		keys := make(chan []string, keysAhead)
		scanned[i] = keys
		work.Go(func() error { return p.readPages(ctx, conn, keys) })
	}
	work.Go(func() error {
		defer func() {
			for _, keys := range scanned {
				close(keys)
			}
		}()
		return p.scan(ctx, scanned[:])
	})
	go func() {
		p.err = work.Wait()
		close(p.read)
	}()
}

// scan sends the keys of all values, each to its connection, in parts of the size of a page.
func (p *redisPages) scan(ctx context.Context, scanned []chan []string) error {
	seed := maphash.MakeSeed()
	for cursor, more := uint64(0), true; more; {
		reply, cancel := context.WithTimeout(ctx, stepTimeout)
		keys, next, err := p.scanning.Scan(reply, cursor, p.shard.Pattern(), scanKeys).Result()
		cancel()
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		parts := make([][]string, len(scanned))
		for _, key := range keys {
			i := maphash.String(seed, key) % uint64(len(parts))
			parts[i] = append(parts[i], key)
		}
		for i, part := range parts {
			for keys := range slices.Chunk(part, int(max(1, p.limit.get()/p.mean.Load()))) {
				select {
				case scanned[i] <- keys:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		cursor, more = next, next != 0
		if err := p.pace(ctx, len(keys)); err != nil {
			return err
		}
	}
	return nil
}

// pace waits for as long as the scan rate requires after this number of keys.
func (p *redisPages) pace(ctx context.Context, keys int) error {
	const step = 50 * time.Millisecond // the rate may change meanwhile
	began := time.Now()
	defer func() { p.waited.Add(int64(time.Since(began))) }()
	for {
		rate := p.rate.Load()
		if rate <= 0 {
			return nil
		}
		left := time.Duration(float64(keys)/float64(rate)*float64(time.Second)) - time.Since(began)
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(left, step)):
		}
	}
}

// readPages sends a page of values for each requested page.
func (p *redisPages) readPages(ctx context.Context, conn *redis.Conn, scanned <-chan []string) error {
	for keys := range scanned { // scan closes it, also when ctx is done
		select {
		case <-p.requested:
		case <-ctx.Done():
			return ctx.Err()
		}
		values, err := p.values(ctx, conn, keys)
		if err != nil {
			return err
		}
		p.read <- values // never blocks: it has room for all requested pages
	}
	return nil
}

// values reads the values of keys, from one instant.
func (p *redisPages) values(ctx context.Context, conn *redis.Conn, keys []string) ([]protocol.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	got, err := conn.MGet(ctx, keys...).Result()
	if err != nil {
		// It may have been too large for the link. The next snapshot reads half as many keys, down to one.
		p.limit.shrink()
		p.mean.Store(max(p.mean.Load(), 2*p.limit.get()/int64(len(keys))))
		return nil, fmt.Errorf("read a page: %w", err)
	}
	size := 0
	values := make([]protocol.Value, 0, len(keys))
	for i, v := range got {
		if s, ok := v.(string); ok { // otherwise deleted since the SCAN, or not a string
			values = append(values, protocol.Value{Key: strings.TrimPrefix(keys[i], p.shard.Prefix), Stored: s, Present: true})
			size += len(s)
		}
	}
	p.mean.Store(max(1, (p.mean.Load()+int64(size/len(keys)))/2))
	return values, nil
}

var errServerChanged = errors.New("the server was restarted or replaced during the snapshot")

func (p *redisPages) finish(ctx context.Context) (protocol.Head, error) {
	st, err := protocol.FetchStep(ctx, p.scanning, p.shard, protocol.Query{Watermark: endOfLog, Limit: stepLeast})
	if err != nil {
		return protocol.Head{}, fmt.Errorf("read the head: %w", err)
	}
	if err := p.checkMigration(ctx); err != nil {
		return protocol.Head{}, err
	}
	// A primary that is demoted drops its values before it receives those of its new primary, and keeps its run id:
	// without this check, the snapshot of an empty server would empty the replica.
	if err := p.checkRole(ctx); err != nil {
		return protocol.Head{}, err
	}
	for _, conn := range p.conns() { // last, so that it covers everything that was read before
		run, err := runID(ctx, conn)
		if err != nil {
			return protocol.Head{}, fmt.Errorf("identify the server: %w", err)
		}
		if run != p.run {
			return protocol.Head{}, errServerChanged
		}
	}
	p.limit.grow()
	return st.Head, nil
}

// checkMigration reports a migration that moves the keys of the shard's slot to another node of a Redis Cluster, one by
// one: a SCAN does not return keys that have moved, and for any absent key the node replies ASK.
func (p *redisPages) checkMigration(ctx context.Context) error {
	err := p.scanning.Get(ctx, p.shard.Prefix).Err() // no value has the empty key
	if redis.HasErrorPrefix(err, "ASK") || redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "TRYAGAIN") {
		return fmt.Errorf("the slot is being moved to another node: %w", err)
	}
	return nil
}

func (p *redisPages) conns() []*redis.Conn { return append(p.reading[:], p.scanning) }

func (p *redisPages) total() int64 { return p.size }

func (p *redisPages) close() {
	if p.stop != nil {
		p.stop()
		for range p.read { // wait until the reads have ended
		}
	}
	for _, conn := range p.conns() {
		_ = conn.Close() // returns it to the pool
	}
}

// runID returns the run id of the server. It is empty for the embedded Redis, which has no server section in INFO; a
// connection cannot outlive its process.
func runID(ctx context.Context, conn *redis.Conn) (string, error) {
	info, err := conn.Info(ctx, "server").Result()
	if err != nil && strings.Contains(err.Error(), "not supported") {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return redisnode.ParseInfo(info)["run_id"], nil
}
