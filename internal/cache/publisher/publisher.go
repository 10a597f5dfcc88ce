// Package publisher is the write side of the cache: each call is one atomic script in Redis that stores values, appends to
// the log and publishes the same bytes.
package publisher

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/census"
	"heavy-read-api/internal/cache/clock"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
)

// Config configures a publisher. The caller owns the Finder, and closes it after the last write.
type Config struct {
	Redis     *redisnode.Finder
	Channel   string           // Pub/Sub channel; default posts_updates
	Namespace string           // first part of every key in Redis; default posts
	LogLength int64            // minimum number of writes that the log keeps; default DefaultLogLength
	Timeout   time.Duration    // deadline of a write; default 1.5 s. If the reply is lost, Write takes up to a quarter longer
	Replicas  int              // number of Redis replicas that must confirm a write; default 0
	Now       func() time.Time // clock of this host, which tests replace; default time.Now
}

// Publisher writes values to Redis and publishes them. Any goroutine may call its methods.
type Publisher struct {
	cfg   Config
	keys  protocol.Keys
	clock serverClock
}

// DefaultLogLength is the default length of the log, in writes. A snapshot of a million values takes seconds, in which
// hundreds of thousands of writes can arrive.
const DefaultLogLength = 1_000_000

// New returns a Publisher. It does not connect.
func New(cfg Config) (*Publisher, error) {
	if cfg.Redis == nil {
		return nil, errors.New("a publisher needs a Finder of its Redis server")
	}
	cfg.Channel = cmp.Or(cfg.Channel, protocol.DefaultChannel)
	cfg.Namespace = cmp.Or(cfg.Namespace, protocol.DefaultNamespace)
	cfg.LogLength = cmp.Or(cfg.LogLength, DefaultLogLength)
	cfg.Timeout = cmp.Or(cfg.Timeout, 1500*time.Millisecond)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := protocol.CheckNamespace(cfg.Namespace); err != nil {
		return nil, err
	}
	p := &Publisher{cfg: cfg, keys: protocol.NewKeys(cfg.Namespace)}
	p.clock = serverClock{now: cfg.Now, log: p.keys.Log, measured: clock.New()}
	return p, nil
}

// Result is the result of one write.
type Result struct {
	Outcome protocol.Outcome
	Token   protocol.Token // version of the write, or the newest version when nothing changed
	WriteID uint64         // write id of the commit; 0 when nothing changed
}

// Errors of Write. Both mean that Redis did not reply in time or refused the write.
var (
	// ErrNotWritten means that none of the writes took place, and none will.
	ErrNotWritten = errors.New("not written")
	// ErrUnknown means that either all writes took place or none, and Redis did not reply which. They
	// will not take place later than Timeout after the call, unless Redis's clock is set back meanwhile.
	ErrUnknown = errors.New("outcome unknown")
)

// MaxWrites and MaxBytes bound one call of Write with several writes: the script blocks Redis while it runs, about 6 us
// a write, and replicas apply a commit as a whole. A call costs Redis one fsync.
const (
	MaxWrites = 1000
	MaxBytes  = 4 << 20 // size of keys and values, in bytes
)

// call is a call of write.lua.
type call struct {
	node     *redisnode.Node
	writes   []protocol.Write
	id       []byte        // write id
	deadline time.Time     // by this host's clock
	expires  int64         // deadline by Redis's clock, Unix ms
	before   protocol.Head // head of the log before the call, without an epoch
}

// Write performs a write, or several sets without conditions, in one atomic step and in their order: all of them take place,
// or none. It is never sent twice. It blocks for Timeout, for a quarter more when the reply is lost, or until ctx is
// done. The error is nil, wraps ErrNotWritten or ErrUnknown, or describes an invalid write.
func (p *Publisher) Write(ctx context.Context, writes ...protocol.Write) ([]Result, error) {
	if err := validate(writes); err != nil {
		return nil, err
	}
	began, timeout := p.clock.now(), p.cfg.Timeout
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, d.Sub(began))
	}
	deadline := began.Add(timeout)
	inTime, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for {
		n, err := p.cfg.Redis.Node(inTime)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotWritten, err)
		}
		c := &call{node: n, writes: writes, deadline: deadline}
		release := n.Acquire() // keeps its connections open for the reply, also if another write finds that n must be left
		results, err := p.send(inTime, c)
		release()
		if err == nil {
			return results, nil
		}
		p.clock.forget()
		p.cfg.Redis.ReportError(n, err)
		// The script has not run: a server that is no longer a primary, or does not have this shard, refuses it, and a
		// closed client does not send it. So sending it to the right node cannot write twice.
		if redisnode.Refused(err) || errors.Is(err, redis.ErrClosed) {
			continue
		}
		if lost(err) {
			return p.resolve(ctx, c, err)
		}
		return nil, classify(err)
	}
}

// validate returns why a call with these writes is invalid.
func validate(writes []protocol.Write) error {
	if len(writes) == 0 || len(writes) > MaxWrites {
		return fmt.Errorf("%d writes in a call: use 1 to %d", len(writes), MaxWrites)
	}
	size := 0
	for i := range writes {
		err := writes[i].Validate()
		if err == nil && len(writes) > 1 && (writes[i].Op == protocol.Delete || !writes[i].If.None()) {
			err = errors.New("a delete or a write with a condition is among others: use a separate call for it")
		}
		if size += len(writes[i].Key) + len(writes[i].Value); err == nil && len(writes) > 1 && size > MaxBytes {
			err = fmt.Errorf("the call has %d bytes up to here: use at most %d, or a separate call for each write", size, MaxBytes)
		}
		if err != nil {
			return fmt.Errorf("write %d: %w", i+1, err)
		}
	}
	return nil
}

// send performs a call, and sets its write id, its deadline by Redis's clock and the head before it.
func (p *Publisher) send(ctx context.Context, c *call) ([]Result, error) {
	server, err := p.clock.read(ctx, c.node.Client)
	if err != nil {
		return nil, fmt.Errorf("%w: read the time of Redis: %w", ErrNotWritten, err)
	}
	c.before, c.expires = server.head, server.millis(c.deadline)
	ids := make([]byte, 16)
	if _, err := rand.Read(ids); err != nil {
		panic(err) // crypto/rand does not fail on a working system
	}
	c.id = ids[8:]
	keys, args := (&protocol.WriteCall{
		Channel: p.cfg.Channel, LogLength: p.cfg.LogLength, Writes: c.writes, Published: p.clock.measured.Now(p.clock.now()),
		Expires: c.expires, WriteID: c.id, NewEpoch: ids[:8],
	}).Arguments(p.keys)
	sent := p.clock.now()
	raw, unconfirmed, err := p.run(ctx, c.node, keys, args, c.deadline)
	if err != nil {
		return nil, err
	}
	reply, err := protocol.DecodeWriteReply(raw, len(c.writes))
	var results []Result
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	} else {
		results, err = resultsOf(reply, c)
	}
	p.noteTime(c, sent, reply.Micros, results)
	if err == nil && unconfirmed != nil && results[0].Outcome.Changed() {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, unconfirmed)
	}
	return results, err
}

// noteTime stores the server time in a reply of write.lua, 0 for none, and the head of the log after it.
func (p *Publisher) noteTime(c *call, sent time.Time, micros int64, results []Result) {
	if micros == 0 {
		return
	}
	head := c.before
	if n := len(results); n > 0 && results[0].Outcome.Changed() {
		head = protocol.Head{Version: results[n-1].Token.Version, WriteID: binary.BigEndian.Uint64(c.id)}
	}
	p.clock.set(c.node.Client, sent, micros, head)
}

// run runs write.lua. It returns the reply, and an error when fewer Redis replicas than configured have confirmed the
// commit. WAIT is sent in the same round trip.
func (p *Publisher) run(ctx context.Context, n *redisnode.Node, keys []string, args []any, deadline time.Time) (reply []any, unconfirmed, err error) {
	reply, err = protocol.RunLoaded(ctx, n, func() *redis.Cmd {
		if p.cfg.Replicas == 0 {
			return protocol.WriteScript.EvalSha(ctx, n, keys, args...)
		}
		pipe := n.Pipeline()
		script := protocol.WriteScript.EvalSha(ctx, pipe, keys, args...)
		wait := pipe.Do(ctx, "wait", p.cfg.Replicas, max(1, deadline.Sub(p.clock.now()).Milliseconds()))
		_, _ = pipe.Exec(ctx) // each command has its own error
		unconfirmed = nil
		switch replicas, failed := wait.Int(); {
		case failed != nil:
			unconfirmed = fmt.Errorf("WAIT: %w", failed)
		case replicas < p.cfg.Replicas:
			unconfirmed = fmt.Errorf("only %d Redis replicas confirmed the write in time, %d are required", replicas, p.cfg.Replicas)
		}
		return script
	}).Slice()
	return reply, unconfirmed, err
}

// resultsOf returns the results of c in a reply of write.lua, or in one of settle.lua for a commit that took place.
func resultsOf(reply protocol.WriteReply, c *call) ([]Result, error) {
	if reply.State == protocol.NotCommitted {
		return nil, fmt.Errorf("%w: it reached Redis after its deadline", ErrNotWritten)
	}
	if reply.State != protocol.Committed {
		return nil, fmt.Errorf("%w: malformed reply with state %d", ErrUnknown, reply.State)
	}
	token, writes := reply.Before, c.writes
	results := make([]Result, len(writes))
	for i := range results {
		results[i].Outcome = protocol.Outcome(reply.Outcomes[i%len(reply.Outcomes)])
		if results[i].Outcome.Changed() {
			token.Version++
			results[i].WriteID = binary.BigEndian.Uint64(c.id)
		}
		results[i].Token = token
	}
	if len(writes) > 1 { // among several writes of one key, all but the first replace
		seen := make(map[string]bool, len(writes))
		for i := range writes {
			if seen[writes[i].Key] {
				results[i].Outcome = protocol.Replaced
			}
			seen[writes[i].Key] = true
		}
	}
	return results, nil
}

// Check returns nil when Redis would accept a write now, otherwise an error with the reason. It writes nothing, and
// blocks at most until ctx is done.
func (p *Publisher) Check(ctx context.Context) error {
	n, err := p.cfg.Redis.Node(ctx)
	if err != nil {
		return err
	}
	// No value is stored under the prefix itself, because no key is empty.
	keys := []string{p.keys.Seq, p.keys.Epoch, p.keys.Log, p.keys.Prefix}
	newest, err := protocol.RunLoaded(ctx, n, func() *redis.Cmd { return protocol.CheckScript.EvalSha(ctx, n, keys, p.cfg.Channel) }).Text()
	if err != nil {
		p.cfg.Redis.ReportError(n, err)
		return err
	}
	if err := protocol.CheckFormat(newest); err != nil {
		return &FormatError{err}
	}
	return nil
}

// FormatError reports that a build with another format wrote the newest posts. Writes of this build would mix both
// formats.
type FormatError struct{ error }

// Hazards describes settings with which Redis loses values without a write. The error says why they could not be read, for
// instance because a managed service hides them. It blocks at most until ctx is done.
func (p *Publisher) Hazards(ctx context.Context) ([]string, error) {
	n, err := p.cfg.Redis.Node(ctx)
	if err != nil {
		return nil, err
	}
	c, err := census.Take(ctx, n)
	return c.Hazards(), err
}

// refusals are the prefixes of errors with which Redis refuses a script before it has written anything.
var refusals = []string{"LOADING", "READONLY", "MISCONF", "OOM", "BUSY", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "MASTERDOWN", "MOVED", "ASK", "TRYAGAIN", "NOREPLICAS"}

// classify wraps an error of the client in ErrNotWritten when nothing can have been written, otherwise in ErrUnknown.
func classify(err error) error {
	if errors.Is(err, ErrNotWritten) || errors.Is(err, ErrUnknown) {
		return err
	}
	for _, prefix := range refusals {
		if redis.HasErrorPrefix(err, prefix) {
			return fmt.Errorf("%w: %w", ErrNotWritten, err)
		}
	}
	// A denied command in a script was a read, because write.lua checks the rights to its write commands first.
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) || protocol.Denied(err) {
		return fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}
