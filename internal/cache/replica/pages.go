package replica

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// pages iterates over all values, on connections to one run of one server.
type pages interface {
	// next returns the next page, or an empty one when that takes longer than followPause. With ahead,
	// the pages after it are read in the background. Without, no read is begun but that of one page
	// when none is under way: whoever calls next so until a page is quiet has all values that were
	// read, and every later one will be as it was at some instant after that.
	next(ctx context.Context, ahead bool) (page, error)
	// finish reports whether the pages together were all the values: the server that answered the
	// first was still the one that answered the last. It returns the head of that server, after the
	// last page.
	finish(ctx context.Context) (protocol.Head, error)
	// total estimates the number of values in all pages.
	total() int64
	close()
}

// page is a part of a snapshot: values of one instant. It may be empty. A key may come again, on
// the same page or on another.
type page struct {
	values []protocol.Value
	more   bool // there are pages behind it
	quiet  bool // no read is under way
}

// Bounds of a page, a tenth of a second of work for Redis at the most.
const (
	scanKeys  = 1000            // COUNT of a SCAN
	pageBytes = 2 << 20 / reads // of the values of a page, about
	pageLeast = 16 << 10        // the same, after loads that failed
	firstMean = pageBytes / 8

	reads = 2 // pages that are read at a time, each on its connection

	// keysAhead and pagesAhead bound what is read before it is asked for.
	keysAhead  = 4 // pages' keys
	pagesAhead = 6
)

func (s *redisSource) open(ctx context.Context) (pages, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return nil, err
	}
	s.mean.CompareAndSwap(0, firstMean)
	p := &redisPages{
		scanning: n.Conn(), shard: s.keys, mean: &s.mean, limit: &s.page,
		checkRole: func(ctx context.Context) error { return s.redis.CheckRole(ctx, n) },
		asked:     make(chan struct{}, 1+pagesAhead), read: make(chan []protocol.Value, 1+pagesAhead),
	}
	for i := range p.reading {
		p.reading[i] = n.Conn()
	}
	if p.run, err = runID(ctx, p.scanning); err != nil {
		p.close()
		return nil, fmt.Errorf("identify the server: %w", err)
	}
	for _, check := range []func(context.Context) error{p.checkRole, p.whole} {
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

// redisPages is a SCAN on one connection, and the values of its keys on others: Redis works on one
// request while the reply to another is taken in. A key is always read on the same connection, so
// that of two reads the later one also comes later. No connection is ever redialed on the quiet:
// the client has no retries, and a connection that breaks fails the snapshot. A cursor means nothing
// to another run of the server: continued over a restart it missed a quarter of the keys.
type redisPages struct {
	scanning *redis.Conn
	reading  [reads]*redis.Conn

	shard     protocol.Keys
	run       string
	size      int64
	mean      *atomic.Int64 // the source's
	limit     *byteBound    // the source's
	checkRole func(ctx context.Context) error

	stop     context.CancelFunc    // nil before the first page
	asked    chan struct{}         // has a token for each page that may be read; never closed
	read     chan []protocol.Value // closed at the end, and after an error
	err      error                 // of the reads, once read is closed
	underway int                   // pages that were asked for and not taken
}

func (p *redisPages) next(ctx context.Context, ahead bool) (page, error) {
	if p.stop == nil {
		p.start(ctx)
	}
	wanted := 1
	if ahead {
		wanted += pagesAhead
	} else {
		p.takeBack()
	}
	for ; p.underway < wanted; p.underway++ {
		p.asked <- struct{}{}
	}
	pause := time.NewTimer(followPause) // a SCAN may go on for long before it finds keys of ours
	defer pause.Stop()
	select {
	case values, more := <-p.read:
		if !more {
			return page{quiet: true}, p.err
		}
		p.underway--
		for i := range values {
			if err := protocol.CheckFormat(values[i].Stored); err != nil {
				return page{}, err
			}
		}
		return page{values: values, more: true, quiet: p.underway == 0}, nil
	case <-pause.C:
		if !ahead {
			p.takeBack()
		}
		return page{more: true, quiet: p.underway == 0}, nil
	}
}

// takeBack takes back what was asked for and has not been begun.
func (p *redisPages) takeBack() {
	for {
		select {
		case <-p.asked:
			p.underway--
		default:
			return
		}
	}
}

// start begins to scan, and to read what is asked for, until ctx is done.
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

// scan sends the keys of all values, each to its connection, as many at a time as a page should
// have.
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
	}
	return nil
}

// readPages sends the values of what is scanned, a page for each token.
func (p *redisPages) readPages(ctx context.Context, conn *redis.Conn, scanned <-chan []string) error {
	for keys := range scanned { // is closed when ctx is done
		select {
		case <-p.asked:
		case <-ctx.Done():
			return ctx.Err()
		}
		values, err := p.values(ctx, conn, keys)
		if err != nil {
			return err
		}
		p.read <- values // has room for all that was asked for
	}
	return nil
}

// values reads the values of keys, at one instant.
func (p *redisPages) values(ctx context.Context, conn *redis.Conn, keys []string) ([]protocol.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	got, err := conn.MGet(ctx, keys...).Result()
	if err != nil {
		// It may have been too much for the link: half as many keys, down to one, whatever they weigh.
		p.limit.shrink()
		p.mean.Store(max(p.mean.Load(), 2*p.limit.get()/int64(len(keys))))
		return nil, fmt.Errorf("read a page: %w", err)
	}
	size := 0
	values := make([]protocol.Value, 0, len(keys))
	for i, v := range got {
		if s, ok := v.(string); ok { // else deleted since the SCAN, or not a string
			values = append(values, protocol.Value{Key: strings.TrimPrefix(keys[i], p.shard.Prefix), Stored: s, Present: true})
			size += len(s)
		}
	}
	p.mean.Store(max(1, (p.mean.Load()+int64(size/len(keys)))/2))
	return values, nil
}

var errServerChanged = errors.New("the server was restarted or replaced in the middle of the snapshot")

func (p *redisPages) finish(ctx context.Context) (protocol.Head, error) {
	st, err := protocol.FetchStep(ctx, p.scanning, p.shard, protocol.Query{Watermark: endOfLog, Limit: stepLeast})
	if err != nil {
		return protocol.Head{}, fmt.Errorf("read the head: %w", err)
	}
	if err := p.whole(ctx); err != nil {
		return protocol.Head{}, err
	}
	// A primary that is demoted drops its values before it receives those of its new primary, and stays the
	// same run of the server: without this check the snapshot of an empty server would empty the replica.
	if err := p.checkRole(ctx); err != nil {
		return protocol.Head{}, err
	}
	for _, conn := range p.conns() { // last: it vouches for all that was read before
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

// whole reports a migration that moves the keys of the shard's slot to another node of a Redis Cluster,
// one by one: a SCAN does not return those that are gone, and for any absent key the node answers ASK.
func (p *redisPages) whole(ctx context.Context) error {
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
		for range p.read { // until the reads have ended
		}
	}
	for _, conn := range p.conns() {
		_ = conn.Close() // goes back to the pool
	}
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
	return redisnode.ParseInfo(info)["run_id"], nil
}
