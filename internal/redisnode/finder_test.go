package redisnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// finder returns a Finder that is closed when the test ends.
func finder(t testing.TB, cfg Config) *Finder {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// node returns the node that f finds.
func node(t testing.TB, f *Finder) *Node {
	t.Helper()
	n, err := f.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fakeDNS is a DNS resolver that returns ips for every name.
type fakeDNS struct {
	mu  sync.Mutex // guards ips
	ips []string
}

func (r *fakeDNS) set(ips ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ips = ips
}

func (r *fakeDNS) lookup(context.Context, string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ips) == 0 {
		return nil, errors.New("no such host")
	}
	return r.ips, nil
}

// forward forwards connections to ip:port, a loopback address, to target.
func forward(t testing.TB, ip, port string, target string) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				to, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer to.Close()
				go func() { _, _ = io.Copy(to, conn); _ = to.Close() }()
				_, _ = io.Copy(conn, to)
			}()
		}
	}()
}

// When a DNS name moves to another server, every connection moves too, subscriptions included, even if the
// old server stays up and still claims to be a primary.
func TestNameMoves(t *testing.T) {
	redistest.Require(t)
	old, promoted := redistest.Start(t), redistest.Start(t)
	port := fmt.Sprint(old.Port())
	forward(t, "127.0.0.2", port, promoted.Addr())
	dns := &fakeDNS{ips: []string{"127.0.0.1"}}
	f := finder(t, Config{Addrs: []string{"redis.test:" + port}, LookupHost: dns.lookup})
	first := node(t, f)
	sub := first.Subscribe(t.Context(), "channel")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	dns.set() // DNS fails: the working connections stay
	f.mu.Lock()
	f.started = time.Time{}
	f.mu.Unlock()
	if n := node(t, f); n != first {
		t.Fatal("a failed DNS lookup moved the connections")
	}
	dns.set("127.0.0.2")
	eventually.Nil(t, func() error {
		if n := node(t, f); n.Addr != "127.0.0.2:"+port {
			return fmt.Errorf("still on %s", n.Addr)
		}
		return nil
	})
	if _, err := sub.Receive(t.Context()); err == nil {
		t.Error("the subscription is still on the old server")
	}
	if err := first.Ping(t.Context()).Err(); !errors.Is(err, redis.ErrClosed) {
		t.Errorf("the old client: %v", err)
	}
}

// If a name resolves to several addresses, the Finder picks the primary.
func TestNameWithReplicas(t *testing.T) {
	redistest.Require(t)
	primary := redistest.Start(t)
	replica := redistest.Start(t, redistest.ReplicaOf(primary))
	port := fmt.Sprint(replica.Port())
	forward(t, "127.0.0.2", port, primary.Addr())
	dns := &fakeDNS{ips: []string{"127.0.0.1", "127.0.0.2"}}
	f := finder(t, Config{Addrs: []string{"redis.test:" + port}, LookupHost: dns.lookup})
	if n := node(t, f); n.Addr != "127.0.0.2:"+port {
		t.Errorf("found %s, want the primary at 127.0.0.2", n.Addr)
	}
}

// The Finder leaves a server that is demoted at once, and finds it again when it is promoted.
func TestDemotedServerIsLeft(t *testing.T) {
	redistest.Require(t)
	a, b := redistest.Start(t), redistest.Start(t)
	f := finder(t, Config{Addrs: []string{a.Addr()}})
	n := node(t, f)
	if err := f.CheckFresh(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	a.ReplicaOf(b)
	if err := f.CheckFresh(t.Context(), n); !errors.Is(err, ErrNotPrimary) {
		t.Fatalf("a demoted server: %v", err)
	}
	if _, err := f.Node(t.Context()); !errors.Is(err, ErrNotPrimary) || !strings.Contains(err.Error(), b.Addr()) {
		t.Fatalf("a Redis replica although a primary is required: %v", err)
	}
	a.Promote()
	eventually.Nil(t, func() error { _, err := f.Node(t.Context()); return err })
}

// The Finder leaves a server after it has refused a write as a Redis replica.
func TestRefusedWriteLeaves(t *testing.T) {
	redistest.Require(t)
	a, b := redistest.Start(t), redistest.Start(t)
	f := finder(t, Config{Addrs: []string{a.Addr()}})
	n := node(t, f)
	a.ReplicaOf(b)
	err := n.Set(t.Context(), "a", "b", 0).Err()
	if !Refused(err) {
		t.Fatalf("a write to a Redis replica: %v", err)
	}
	f.ReportError(n, err)
	if _, err := f.Node(t.Context()); !errors.Is(err, ErrNotPrimary) {
		t.Errorf("after a refused write: %v", err)
	}
}

// The data of a Redis replica counts as fresh only while every link of its chain to the primary works.
func TestChainOfReplicas(t *testing.T) {
	redistest.Require(t)
	primary := redistest.Start(t, redistest.Config("repl-ping-replica-period 1"))
	link := faultnet.NewProxy(t, primary.Addr())
	middle := redistest.Start(t, redistest.ReplicaOf(link), redistest.Config("repl-ping-replica-period 1"))
	last := redistest.Start(t, redistest.ReplicaOf(middle))
	last.WaitReplicaOnline()
	f := finder(t, Config{Addrs: []string{last.Addr()}, ReadFrom: Replica})
	n := node(t, f)
	current := func() error { return f.CheckFresh(t.Context(), n) }
	eventually.Nil(t, current)
	replication := link.Only(faultnet.Contains("PSYNC"))
	replication.Stall(faultnet.ToClient, true)
	eventually.True(t, "silent link", func() bool { return current() != nil })
	if err := current(); !strings.Contains(err.Error(), middle.Addr()) {
		t.Errorf("the reason does not name the server with the silent link: %v", err)
	}
	replication.Stall(faultnet.ToClient, false)
	eventually.Nil(t, current)
	last.Promote()
	if err := current(); err != nil {
		t.Errorf("after a promotion: %v", err)
	}
}

// All callers share a search, and searches that fail back off.
func TestSearchesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		searches := 0
		f := finder(t, Config{Addrs: []string{"redis.test:1"}, LookupHost: func(context.Context, string) ([]string, error) {
			searches++
			return nil, errors.New("no such host")
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				for ctx.Err() == nil {
					if _, err := f.Node(ctx); err == nil || !strings.Contains(err.Error(), "redis.test") {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
		_ = f.Close() // ends the search in flight
		if least, most := int(2*time.Second/maxPause), int(2*time.Second/maxPause)+4; searches < least || searches > most {
			t.Errorf("%d searches in 2 s, want %d to %d", searches, least, most)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, bad := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "no address"},
		{Config{Addrs: []string{"localhost"}}, "host:port"},
		{Config{Addrs: []string{"a:1", "/run/redis.sock"}}, "host:port"},
		{Config{Addrs: []string{"a:1"}, ReadFrom: "both"}, "primary or replica"},
		{Config{Addrs: []string{"a:1"}, DB: -1}, "from 0"},
		{Config{Addrs: []string{"a:1", "b:1"}, DB: 1}, "Cluster"},
		{Config{Addrs: []string{"a:1"}, TLS: &TLS{CAFile: "/nowhere.pem"}}, "/nowhere.pem"},
		{Config{Addrs: []string{"a:1"}, TLS: &TLS{CertFile: "/some.pem"}}, "key file"},
		{Config{Addrs: []string{"/run/redis.sock"}, TLS: &TLS{}}, "name"},
	} {
		if _, err := New(bad.cfg); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: error %v, want it to contain %q", bad.cfg, err, bad.want)
		}
	}
	f, err := New(Config{Addrs: []string{"a:1", "b:1"}, DB: 1, MasterName: "posts"})
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if _, err := f.Node(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSlots(t *testing.T) {
	for key, want := range map[string]int{"123456789": 12739, "foo": 12182, "{foo}bar": 12182, "a{foo}{x}": 12182, "{}foo": 9500, "": 0} {
		if got := Slot(key); got != want {
			t.Errorf("slot of %q: %d, want %d", key, got, want)
		}
	}
}
