package publisher

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// lossy returns a publisher behind a proxy. It has read the time of Redis already, so that the next script is the write of the
// test.
func lossy(t *testing.T, addr string) (*Publisher, *faultnet.Proxy) {
	t.Helper()
	proxy := faultnet.NewProxy(t, addr)
	p := newPublisher(t, proxy.Addr())
	write(t, p, set("there", "old"), set("there too", "old"))
	return p, proxy
}

// A write whose reply is lost returns its real outcome, and takes place once.
func TestLostReplyIsResolved(t *testing.T) {
	tag := protocol.Tag{7}
	tagged := protocol.Write{Op: protocol.Set, Key: "there", Value: []byte("tagged"), Tag: tag}
	for name, tt := range map[string]struct {
		before   *protocol.Write
		writes   []protocol.Write
		outcomes string // outcomes of write.lua; "" when nothing is written
	}{
		"create":              {nil, []protocol.Write{set("a", "1")}, "C"},
		"replace":             {nil, []protocol.Write{set("there", "1")}, "R"},
		"delete":              {nil, []protocol.Write{{Op: protocol.Delete, Key: "there"}}, "D"},
		"the right tag":       {&tagged, []protocol.Write{{Op: protocol.Set, Key: "there", Value: []byte("1"), If: protocol.Condition{Tags: []protocol.Tag{tag}}}}, "R"},
		"delete by tag":       {&tagged, []protocol.Write{{Op: protocol.Delete, Key: "there", If: protocol.Condition{Tags: []protocol.Tag{tag}}}}, "D"},
		"absent":              {nil, []protocol.Write{{Op: protocol.Set, Key: "a", Value: []byte("1"), If: protocol.Condition{Absent: true}}}, "C"},
		"several":             {nil, []protocol.Write{set("a", "1"), set("there", "1"), set("a", "2"), set("b", "1")}, "CRRC"},
		"the wrong tag":       {nil, []protocol.Write{{Op: protocol.Set, Key: "there", Value: []byte("1"), If: protocol.Condition{Tags: []protocol.Tag{tag}}}}, ""},
		"present":             {nil, []protocol.Write{{Op: protocol.Set, Key: "there", Value: []byte("1"), If: protocol.Condition{Absent: true}}}, ""},
		"delete of nothing":   {nil, []protocol.Write{{Op: protocol.Delete, Key: "a"}}, ""},
		"the request is lost": {nil, []protocol.Write{set("a", "1")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, b redistest.Backend) {
				action := faultnet.CutAtReply // detected at once; a swallowed reply is detected at the deadline
				if name == "the request is lost" {
					action = faultnet.CutNow
				}
				p, proxy := lossy(t, b.Addr())
				if tt.before != nil {
					write(t, p, *tt.before)
				}
				first := write(t, p, set("other", "x"))[0].Token
				proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", action)
				began := time.Now()
				results, err := p.Write(t.Context(), tt.writes...)
				took := time.Since(began)
				last := first.Version
				if tt.outcomes == "" {
					if !errors.Is(err, ErrNotWritten) || took < p.cfg.Timeout {
						t.Errorf("%+v, %v after %v", results, err, took)
					}
				} else {
					var outcomes strings.Builder
					for _, r := range results {
						last++
						outcomes.WriteByte(byte(r.Outcome))
						if want := (protocol.Token{Epoch: first.Epoch, Version: last}); r.Token != want {
							t.Errorf("token %v, want %v", r.Token, want)
						}
					}
					if err != nil || outcomes.String() != tt.outcomes {
						t.Errorf("outcomes %s, %v, want %s", outcomes.String(), err, tt.outcomes)
					}
				}
				if got := write(t, p, set("other", "y"))[0].Token.Version; got != last+1 {
					t.Errorf("the next version is %d, want %d", got, last+1)
				}
			})
		})
	}
}

// Others write before and after a write whose reply is swallowed.
func TestLostReplyAmongOtherWrites(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p, proxy := lossy(t, b.Addr())
		other := newPublisher(t, b.Addr())
		for i := range 600 { // more than a page of the log
			write(t, other, set(fmt.Sprint("before", i), "x"))
		}
		hook := proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", faultnet.SwallowReply)
		done := make(chan error, 1)
		go func() {
			<-hook.Fired()
			for i := range 600 {
				if _, err := other.Write(t.Context(), set(fmt.Sprint("after", i), "x")); err != nil {
					done <- err
					return
				}
			}
			_, err := other.Write(t.Context(), protocol.Write{Op: protocol.Delete, Key: "there"})
			done <- err
		}()
		results, err := p.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: "there", Value: []byte("1"), If: protocol.Condition{Exists: true}})
		if err != nil || results[0].Outcome != protocol.Replaced {
			t.Errorf("%+v, %v", results, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An outcome that the log cannot prove is unknown.
func TestOutcomeThatTheLogLacks(t *testing.T) {
	k := protocol.NewKeys(protocol.DefaultNamespace)
	for name, command := range map[string][]any{
		"trimmed":     {"XTRIM", k.Log, "MAXLEN", 0},
		"deleted":     {"DEL", k.Log},
		"rolled back": {"EVAL", "redis.call('DEL', KEYS[1]) return redis.call('XADD', KEYS[1], '2-0', 'e', 'other write id')", 1, k.Log},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, addr string) {
				p, proxy := lossy(t, addr)
				c := client(t, addr)
				hook := proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", faultnet.Swallow)
				done := make(chan error, 1)
				go func() {
					_, err := p.Write(t.Context(), set("a", "1"))
					done <- err
				}()
				<-hook.Fired()
				if err := c.Do(t.Context(), command...).Err(); err != nil {
					t.Fatal(err)
				}
				if err := <-done; !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "log") {
					t.Errorf("%v, want an unknown outcome", err)
				}
			})
		})
	}
}

// The outcome of the first write is resolved too, with an empty log before it.
func TestFirstWriteIsResolved(t *testing.T) {
	for _, action := range []faultnet.Action{faultnet.CutAtReply, faultnet.CutNow} {
		each(t, func(t *testing.T, addr string) {
			proxy := faultnet.NewProxy(t, addr)
			p := newPublisher(t, proxy.Addr())
			proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", action)
			if err := protocol.WriteScript.Load(t.Context(), client(t, addr)).Err(); err != nil {
				t.Fatal(err)
			}
			results, err := p.Write(t.Context(), set("a", "1"))
			if action == faultnet.CutNow {
				if !errors.Is(err, ErrNotWritten) {
					t.Errorf("%+v, %v", results, err)
				}
			} else if err != nil || results[0].Outcome != protocol.Created || results[0].Token.Version != 1 {
				t.Errorf("%+v, %v", results, err)
			}
		})
	}
}
