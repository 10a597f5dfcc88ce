package protocol

import (
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/redistest"
)

//go:embed testdata/write-before.lua
var writeBeforeLua string

// During an upgrade, builds of one format share a Redis. The old and the new script give the same replies, values, log entries
// and messages, even if another client has changed the keys.
func TestOldAndNewWritersAlternate(t *testing.T) {
	before := redis.NewScript(readLua + deniedLua + writeBeforeLua)
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		c := b.Client(t)
		for seed := range uint64(10) {
			want := writeHistory(t, b, c, seed, before)
			for name, scripts := range map[string][]*redis.Script{"new": {WriteScript}, "alternating": {before, WriteScript}} {
				got := writeHistory(t, b, c, seed, scripts...)
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("seed %d, %s, step %d:\n%s\nwith the earlier script:\n%s\nafter\n%s", seed, name, i, got[i], want[i], want[max(0, i-1)])
					}
				}
			}
		}
	})
}

// writeHistory empties a server, runs the random calls and disturbances of a seed with the scripts in turn, and describes
// the result of each step: reply, messages, and all keys.
func writeHistory(t *testing.T, b redistest.Backend, c *redis.Client, seed uint64, scripts ...*redis.Script) (steps []string) {
	t.Helper()
	ctx, k, r := t.Context(), NewKeys(DefaultNamespace), rand.New(rand.NewPCG(seed, 0))
	if err := c.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	now := time.UnixMicro(1_700_000_000_123_999) // the last microsecond of a millisecond
	deadlines := []int64{0, 1 << 50, 1 << 50, 1 << 50}
	if e, ok := b.(*redistest.Embedded); ok {
		e.SetTime(now)
		deadlines = []int64{now.UnixMilli() - 1, now.UnixMilli(), now.UnixMilli(), now.UnixMilli() + 1}
	}
	sub := c.Subscribe(ctx, DefaultChannel)
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	id := func() []byte { return strconv.AppendUint(nil, r.Uint64()%9e7+1e7, 10) }
	tag := func() Tag { return Tag{byte(r.IntN(2))} }
	key := func(n int) string { return fmt.Sprint("k", r.IntN(n)) }
	for i := range 60 {
		disturbance := ""
		if r.IntN(4) == 0 {
			disturbance = disturb(t, c, k, r)
		}
		writes := []Write{{Op: Set, Key: key(4), Value: id(), Tag: tag()}}
		switch r.IntN(8) {
		case 0:
			writes[0].Op = Delete
		case 1:
			for range r.IntN(200) {
				writes = append(writes, Write{Op: Set, Key: key(12), Value: id()})
			}
		}
		if len(writes) == 1 {
			writes[0].If = []Condition{{}, {}, {}, {Exists: true}, {Absent: true}, {Tags: []Tag{tag(), {9}}}}[r.IntN(6)]
		}
		call := WriteCall{
			Channel: DefaultChannel, LogLength: 1e6, Writes: writes, Published: now, Expires: deadlines[r.IntN(4)], WriteID: id(), NewEpoch: id(),
		}
		names, args := call.Arguments(k)
		reply, err := scripts[i%len(scripts)].Run(ctx, c, names, args...).Slice()
		var refused redis.Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		messages := ""
		if len(reply) == 5 {
			if outcome := fmt.Sprint(reply[4]); outcome == "F" || outcome == "N" {
				reply[3] = nil // the version of a write that changed nothing is not used
			} else {
				m, err := sub.ReceiveMessage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				messages = m.Payload
			}
		}
		if len(reply) > 1 {
			reply[1] = nil // time
		}
		// The earlier script returned numbers as strings.
		steps = append(steps, fmt.Sprintf("%s\n%d writes, %c %q %+v, until %d: %q, %v\nmessage %q\n%s",
			disturbance, len(writes), writes[0].Op+'0', writes[0].Key, writes[0].If, call.Expires, fmt.Sprint(reply...), err, messages, stored(t, c)))
	}
	return steps
}

// disturb changes the keys as another client might, and returns how.
func disturb(t *testing.T, c *redis.Client, k Keys, r *rand.Rand) string {
	t.Helper()
	one := []string{k.Seq, k.Epoch, k.Log, k.Prefix + "k0"}[r.IntN(4)]
	numbers := []string{
		"0", "-1", "x", "", "7", "1.5", "nan", "inf", "254", "99999999999998", "4500000000000000", "8999999999999999", "9000000000000000",
		"9007199254740993", "99999999999999999999",
	}
	number := numbers[r.IntN(len(numbers))]
	var commands [][]any
	switch r.IntN(8) {
	case 0, 1:
		commands = [][]any{{"SET", k.Seq, number}}
	case 2:
		commands = [][]any{{"DEL", one}}
	case 3:
		commands = [][]any{{"DEL", one}, {"RPUSH", one, "x"}}
	case 4:
		commands = [][]any{{"SET", one, "short"}}
	case 5: // an entry of another program, with the sequence to match
		number = []string{"7", "281474976710654", "4499999999999998", "8999999999999900", "8999999999999999"}[r.IntN(5)]
		entry := []string{"long enough for two ids", "short"}[r.IntN(2)]
		commands = [][]any{{"DEL", k.Log}, {"XADD", k.Log, number + "-0", "e", entry}, {"SET", k.Seq, number}}
	case 6:
		commands = [][]any{{"XADD", k.Log, []string{"77-1", "99999999999999-5"}[r.IntN(2)], "e", "short"}}
		if r.IntN(2) == 0 {
			commands = [][]any{{"XTRIM", k.Log, "MAXLEN", "0"}}
		}
	case 7:
		last, err := c.XRevRangeN(t.Context(), k.Log, "+", "-", 2).Result()
		if err == nil && len(last) == 2 { // the log then refuses the next version
			commands = [][]any{{"XDEL", k.Log, last[0].ID}, {"SET", k.Seq, strings.TrimSuffix(last[1].ID, "-0")}}
		}
	}
	for _, command := range commands {
		_ = c.Do(t.Context(), command...).Err() // may not be possible
	}
	return fmt.Sprint(commands)
}

// stored describes all keys.
func stored(t *testing.T, c *redis.Client) string {
	t.Helper()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	kinds, contents, pipe := make([]*redis.StatusCmd, len(keys)), make([][]redis.Cmder, len(keys)), c.Pipeline()
	for i, key := range keys {
		kinds[i] = pipe.Type(t.Context(), key)
		// One of the two fails.
		contents[i] = []redis.Cmder{pipe.Get(t.Context(), key), pipe.XRange(t.Context(), key, "-", "+")}
	}
	_, _ = pipe.Exec(t.Context())
	var all strings.Builder
	for i, key := range keys {
		content := kinds[i].Val()
		switch content {
		case "string":
			content = contents[i][0].(*redis.StringCmd).Val()
		case "stream":
			content = fmt.Sprint(contents[i][1].(*redis.XMessageSliceCmd).Val())
		}
		fmt.Fprintf(&all, "%s=%q\n", key, content)
	}
	return all.String()
}
