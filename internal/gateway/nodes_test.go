package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newTestNodes returns a list without checks.
func newTestNodes(addrs ...string) *nodes {
	p := newNodes(slog.New(slog.DiscardHandler), new(pools))
	p.check = func(context.Context, *node) {}
	p.set(context.Background(), addrs)
	return p
}

func (v *view) readyAddrs() string {
	var addrs []string
	for _, n := range v.ready {
		addrs = append(addrs, n.addr)
	}
	return strings.Join(addrs, " ")
}

func TestHealth(t *testing.T) {
	tests := []struct {
		name   string
		events string // results of checks (pass, fail) and of requests (answer, refuse, timeout)
		ready  bool
	}{
		{"new", "", false},
		{"first check passed", "pass", true},
		{"first check failed, second passed", "fail pass", true},
		{"one check failed", "pass fail", true},
		{"failed checks with one passed between", "pass fail pass fail", true},
		{"two checks failed", "pass fail fail", false},
		{"one check passed after ejection", "pass fail fail pass", false},
		{"two checks passed, not in a row", "pass fail fail pass fail pass", false},
		{"two checks passed in a row", "pass fail fail pass pass", true},
		{"new, failed twice, passed once", "fail fail pass", false},
		{"refused once", "pass refuse", true},
		{"refused twice", "pass refuse refuse", false},
		{"refused twice with an answer between", "pass refuse answer refuse", true},
		{"refused twice with a check between", "pass refuse pass refuse", false},
		{"timeouts do not count", "pass timeout timeout timeout timeout timeout", true},
		{"timeouts and refusals are counted separately", "pass timeout refuse timeout", true},
		{"a timeout does not reset the refusals", "pass refuse timeout refuse", false},
		{"an answer does not replace a check", "pass refuse refuse answer answer answer", false},
		{"two checks passed after refusals", "pass refuse refuse pass pass", true},
		{"a late failure does not delay the return", "pass refuse refuse pass refuse refuse pass", true},
		{"the return resets the refusals", "pass refuse refuse refuse pass pass refuse", true},
		{"new and refused", "refuse refuse pass", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newTestNodes("a:1")
			n := p.list[0]
			for event := range strings.FieldsSeq(test.events) {
				switch event {
				case "pass":
					p.checked(n, nil)
				case "fail":
					p.checked(n, errors.New("503"))
				case "answer":
					n.answered()
				case "refuse":
					p.missed(n, errors.New("refused"))
				case "timeout":
					p.missed(n, context.DeadlineExceeded)
				}
			}
			if got := len(p.view.Load().ready) == 1; got != test.ready {
				t.Errorf("ready = %v, want %v", got, test.ready)
			}
			if s := p.statuses()[0]; s.ready != test.ready || (s.reason == "") != test.ready {
				t.Errorf("status %+v, want ready = %v, and a reason if not", s, test.ready)
			}
		})
	}
}

func TestReasonOfTheLastCheck(t *testing.T) {
	p := newTestNodes("a:1")
	for _, reason := range []string{"connection refused", "connection refused", "503 loading", "503 stopping"} {
		p.checked(p.list[0], errors.New(reason))
		if got := p.statuses()[0].reason; got != reason {
			t.Errorf("reason %q, want %q", got, reason)
		}
	}
}

func TestPick(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
		ready []string
		tried string
		want  string // results of six picks
	}{
		{"none", nil, nil, "", "- - - - - -"},
		{"none is ready", []string{"a:1", "b:1", "c:1"}, nil, "", "a:1 b:1 c:1 a:1 b:1 c:1"},
		{"all are ready", []string{"a:1", "b:1", "c:1"}, []string{"a:1", "b:1", "c:1"}, "", "a:1 b:1 c:1 a:1 b:1 c:1"},
		{"one has not been checked", []string{"a:1", "b:1", "c:1"}, []string{"a:1", "c:1"}, "", "a:1 c:1 a:1 c:1 a:1 c:1"},
		{"a ready one was tried", []string{"a:1", "b:1", "c:1"}, []string{"a:1", "c:1"}, "a:1", "c:1 c:1 c:1 c:1 c:1 c:1"},
		{"the only ready one was tried", []string{"a:1", "b:1"}, []string{"a:1"}, "a:1", "b:1 b:1 b:1 b:1 b:1 b:1"},
		{"two were tried", []string{"a:1", "b:1", "c:1"}, []string{"a:1", "b:1", "c:1"}, "a:1 c:1", "b:1 b:1 b:1 b:1 b:1 b:1"},
		{"all were tried", []string{"a:1"}, []string{"a:1"}, "a:1", "- - - - - -"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newTestNodes(test.addrs...)
			var tried []*node
			for _, n := range p.list {
				if slices.Contains(test.ready, n.addr) {
					p.checked(n, nil)
				}
				if strings.Contains(test.tried, n.addr) {
					tried = append(tried, n)
				}
			}
			var got []string
			for range 6 {
				if n := p.pick(tried); n != nil {
					got = append(got, n.addr)
				} else {
					got = append(got, "-")
				}
			}
			if picks := strings.Join(got, " "); picks != test.want {
				t.Errorf("picked %s, want %s", picks, test.want)
			}
		})
	}
}

func TestSetKeepsHealth(t *testing.T) {
	p := newNodes(slog.New(slog.DiscardHandler), new(pools))
	started, ended := make(chan string, 8), make(chan string, 8)
	p.check = func(ctx context.Context, n *node) {
		started <- n.addr
		<-ctx.Done()
		ended <- n.addr
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.set(ctx, []string{"a:1", "b:1"})
	for range 2 {
		p.checked(p.list[p.indexOf(<-started)], nil)
	}
	p.set(ctx, []string{"b:1", "c:1"})
	if got := <-ended; got != "a:1" {
		t.Errorf("the checks of %s ended, want those of a:1", got)
	}
	if got := <-started; got != "c:1" {
		t.Errorf("the checks of %s started, want those of c:1", got)
	}
	if got := p.view.Load().readyAddrs(); got != "b:1" {
		t.Errorf("ready: %q, want b:1, which is in both lists", got)
	}
	cancel()
	p.wait()
	if len(ended) != 2 || len(started) != 0 {
		t.Errorf("%d checks ended with the context and %d started, want 2 and 0", len(ended), len(started))
	}
}

// failing records all tries and fails each of them.
type failing struct {
	tried []string
	after time.Duration
}

func (f *failing) try(n *node, _ *exchange) error {
	f.tried = append(f.tried, n.addr)
	time.Sleep(f.after)
	return errors.New("reset")
}

func TestNoRetryAfterRetryTimeout(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "a:1 b:1 c:1", retryTimeout/2 - 1: "a:1 b:1 c:1", retryTimeout / 2: "a:1 b:1", retryTimeout: "a:1"} {
		synctest.Test(t, func(t *testing.T) { // fake clock
			next := &failing{after: after}
			b := &balancer{nodes: newTestNodes("a:1", "b:1", "c:1"), try: next.try}
			if err := b.send(&exchange{repeatable: true, start: time.Now()}); err == nil {
				t.Error("send succeeded, want an error")
			}
			if got := strings.Join(next.tried, " "); got != want {
				t.Errorf("each try takes %v: tried %s, want %s", after, got, want)
			}
		})
	}
}
