package publisher

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// The size of a call with several writes is bounded, because replicas apply a commit as a whole.
func TestCommitsAreBounded(t *testing.T) {
	p, err := New(Config{Redis: nodetest.New(t, "127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	half := strings.Repeat("x", MaxBytes/2)
	for name, writes := range map[string][]protocol.Write{
		"too many":  make([]protocol.Write, MaxWrites+1),
		"too large": {set("a", half), set("b", half)},
	} {
		if _, err := p.Write(t.Context(), writes...); err == nil || !strings.Contains(err.Error(), "use") || errors.Is(err, ErrNotWritten) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.Write(t.Context(), set("a", strings.Repeat("x", MaxBytes+1))); !errors.Is(err, ErrNotWritten) {
		t.Errorf("a large value alone: %v", err)
	}
}

// The log is trimmed by the number of writes, also if commits have several writes each.
func TestLogKeepsWrites(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		c := client(t, addr)
		p, err := New(Config{Redis: nodetest.New(t, addr), LogLength: 500})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 450 {
			write(t, p, set(fmt.Sprint("a", i), "x"), set(fmt.Sprint("b", i), "x"), set(fmt.Sprint("c", i), "x"))
		}
		entries, err := c.XLen(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Log).Result()
		if err != nil {
			t.Fatal(err)
		}
		if entries < 500/3 || entries > 500/3+200 { // Redis trims whole nodes of 100
			t.Errorf("%d commits of 3 writes are left, want the last 500 writes", entries)
		}
	})
}

// The log is bounded for every size of its nodes. Redis trims at most 100 of them in one step.
func TestLogIsBounded(t *testing.T) {
	redistest.Require(t)
	for _, nodes := range []string{"1", "2", "100", "0"} { // 0: only bounded by their bytes
		t.Run("nodes of "+nodes, func(t *testing.T) {
			s := redistest.Start(t, redistest.Config("appendfsync no", "stream-node-max-entries "+nodes))
			c := client(t, s.Addr())
			p, err := New(Config{Redis: nodetest.New(t, s.Addr()), LogLength: 1})
			if err != nil {
				t.Fatal(err)
			}
			for range 2500 {
				write(t, p, set("a", "x"))
			}
			entries, err := c.XLen(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Log).Result()
			if err != nil {
				t.Fatal(err)
			}
			if entries > 300 { // those since the last trim, and a node
				t.Errorf("%d entries are left of a log that keeps one write", entries)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		v1, v2 := protocol.Tag{1}, protocol.Tag{2}
		steps := []struct {
			name string
			w    protocol.Write
			want protocol.Outcome
		}{
			{"replace an absent key", protocol.Write{Op: protocol.Set, Key: "k", Tag: v1, If: protocol.Condition{Exists: true}}, protocol.ConditionFailed},
			{"tag of an absent key", protocol.Write{Op: protocol.Set, Key: "k", Tag: v1, If: protocol.Condition{Tags: []protocol.Tag{v1}}}, protocol.ConditionFailed},
			{"create", protocol.Write{Op: protocol.Set, Key: "k", Tag: v1, If: protocol.Condition{Absent: true}}, protocol.Created},
			{"create again", protocol.Write{Op: protocol.Set, Key: "k", Tag: v2, If: protocol.Condition{Absent: true}}, protocol.ConditionFailed},
			{"other tag", protocol.Write{Op: protocol.Set, Key: "k", Tag: v2, If: protocol.Condition{Tags: []protocol.Tag{v2}}}, protocol.ConditionFailed},
			{"one of the tags", protocol.Write{Op: protocol.Set, Key: "k", Tag: v2, If: protocol.Condition{Tags: []protocol.Tag{{9}, v1}}}, protocol.Replaced},
			{"delete with an old tag", protocol.Write{Op: protocol.Delete, Key: "k", If: protocol.Condition{Tags: []protocol.Tag{v1}}}, protocol.ConditionFailed},
			{"delete", protocol.Write{Op: protocol.Delete, Key: "k", If: protocol.Condition{Tags: []protocol.Tag{v2}}}, protocol.Deleted},
			{"delete again", protocol.Write{Op: protocol.Delete, Key: "k", If: protocol.Condition{Exists: true}}, protocol.ConditionFailed},
		}
		for _, s := range steps {
			if got := write(t, p, s.w)[0].Outcome; got != s.want {
				t.Errorf("%s: %c, want %c", s.name, got, s.want)
			}
		}
	})
}

func TestExpiredWriteDoesNotRun(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		write(t, p, set("a", "1"))
		behind := *p.clock.last.Load()
		behind.micros -= time.Hour.Microseconds() // Redis's clock is an hour ahead of the estimate
		p.clock.last.Store(&behind)
		_, err := p.Write(t.Context(), set("a", "2"))
		if !errors.Is(err, ErrNotWritten) {
			t.Fatalf("a write after its deadline: %v", err)
		}
		// The reply to the refused write carried Redis's time, so the next write is in time.
		if got := write(t, p, set("a", "3"))[0].Token.Version; got != 2 {
			t.Errorf("version %d after a refusal, want 2", got)
		}
	})
}

// The script encodes every byte of a version in values and messages, for a single write and across a change of all bytes.
func TestEncodedVersions(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, c, k := newPublisher(t, addr), client(t, addr), protocol.NewKeys(protocol.DefaultNamespace)
		for _, before := range []uint64{0, 255, 1<<24 - 2, 0x01020304050607 - 1, 0x0f00ffffffffff - 2} {
			if err := c.Set(t.Context(), k.Seq, before, 0).Err(); err != nil {
				t.Fatal(err)
			}
			sub := c.Subscribe(t.Context(), protocol.DefaultChannel)
			if _, err := sub.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, writes := range [][]protocol.Write{{set("a", "1")}, {set("b", "2"), set("c", "3")}, {{Op: protocol.Delete, Key: "a"}}} {
				results := write(t, p, writes...)
				message, err := sub.ReceiveMessage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var commit protocol.Commit
				if err := commit.Decode(message.Payload); err != nil {
					t.Fatal(err)
				}
				for i, w := range writes {
					want := results[i].Token.Version
					if got := commit.Version(i); got != want {
						t.Errorf("%q after %d: the message has version %d, want %d", w.Key, before, got, want)
					}
					if w.Op == protocol.Delete {
						continue
					}
					stored, err := c.Get(t.Context(), k.Prefix+w.Key).Bytes()
					if err != nil {
						t.Fatal(err)
					}
					if got := binary.BigEndian.Uint64(stored[8:]); got != want {
						t.Errorf("%q after %d: the value has version %d, want %d", w.Key, before, got, want)
					}
				}
			}
			if err := sub.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
