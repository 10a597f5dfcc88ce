package failover

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable()
	// The tests wait for Sentinels, so all of them run at once, however few the cores.
	_ = flag.Set("test.parallel", "8") // a default; -parallel overrides it
	os.Exit(m.Run())
}

const master = redistest.SentinelName

// watched is a primary with two Redis replicas and three Sentinels, all of which have discovered each other.
type watched struct {
	primary   *redistest.Server
	replicas  []*redistest.Server
	sentinels []*redistest.Server
}

func startWatched(t *testing.T) *watched {
	t.Helper()
	redistest.Require(t)
	d := redistest.StartSentinel(t, redistest.SentinelOptions{Quick: true, Servers: []redistest.Option{redistest.MinReplicas(1, 2*time.Second)}})
	return &watched{primary: d.Servers()[0], replicas: d.Servers()[1:], sentinels: d.Sentinels()}
}

// run performs a failover and returns the report.
func (w *watched) run(ctx context.Context) (string, error) {
	var out bytes.Buffer
	cfg := Config{Redis: redisconfig.Redis{MasterName: master}, Out: &out}
	for _, s := range w.sentinels {
		cfg.Addr = append(cfg.Addr, s.Addr())
	}
	err := Run(ctx, cfg)
	return out.String(), err
}

// Every write that was acknowledged while the failover ran is on the new primary.
func TestBySentinelLosesNothing(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	written := make(chan int, 1) // number of the last write that was acknowledged
	begun := make(chan struct{})
	old := w.primary.Client(t)
	go func() { // the worst case: a client that writes to the old primary until it is refused
		last := 0
		for n := 1; ctx.Err() == nil; n++ {
			if err := old.Set(ctx, strconv.Itoa(n), "x", 0).Err(); err == nil {
				last = n
			} else if redis.HasErrorPrefix(err, "READONLY") {
				break
			}
			if n == 100 {
				close(begun)
			}
		}
		written <- last
	}()
	<-begun
	report, err := w.run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	if !strings.Contains(report, "Writes were out for") || strings.Count(report, "\n") != 3 {
		t.Errorf("the report is\n%s", report)
	}
	last := <-written
	var promoted *redistest.Server
	for _, r := range w.replicas {
		if role := r.Client(t).Do(t.Context(), "role").Val().([]any)[0]; role == "master" {
			promoted = r
		}
	}
	if promoted == nil || !strings.Contains(report, promoted.Addr()+" is the primary") {
		t.Fatalf("the report does not name the promoted server as the primary:\n%s", report)
	}
	c := promoted.Client(t)
	for n := 1; n <= last; n++ {
		if c.Exists(t.Context(), strconv.Itoa(n)).Val() != 1 {
			t.Fatalf("acknowledged write %d of %d is lost", n, last)
		}
	}
	if err := c.Set(t.Context(), "after", "x", 0).Err(); err != nil {
		t.Errorf("a write at the new primary: %v", err)
	}
	w.primary.WaitReplicaInSync(promoted)
	// The Sentinels must be ready for the next failover at once.
	w.primary, promoted = promoted, nil
	if report, err := w.run(t.Context()); err != nil {
		t.Errorf("the next failover: %v\n%s", err, report)
	}
}

// writable fails the test unless the primary accepts a write. It retries only after NOREPLICAS, because on a
// busy machine the Redis replicas may acknowledge late.
func (w *watched) writable(t *testing.T) {
	t.Helper()
	c := w.primary.Client(t)
	err := c.Set(t.Context(), "k", "v", 0).Err()
	if redis.HasErrorPrefix(err, "NOREPLICAS") {
		eventually.Nil(t, func() error { err = c.Set(t.Context(), "k", "v", 0).Err(); return err })
	}
	if err != nil {
		t.Errorf("the primary refuses writes: %v", err)
	}
}

func TestBySentinelRefuses(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	refuses := func(want string) {
		t.Helper()
		report, err := w.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to contain %q", err, want)
		}
		if strings.Contains(report, "paused") {
			t.Errorf("writes were paused:\n%s", report)
		}
		w.writable(t)
	}
	w.sentinels[0].Kill()
	w.sentinels[1].Kill()
	refuses("1 of 3 Sentinels answer")
	w.sentinels[0].Restart()
	w.sentinels[1].Restart()

	// A Redis replica that follows another one may lack writes that the primary has acknowledged.
	w.replicas[0].ReplicaOf(w.replicas[1])
	refuses("does not replicate " + w.primary.Addr())
}

// If a Redis replica hangs and cannot catch up, the pause ends and the primary stays.
func TestBySentinelGivesUp(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	cfg := Config{Redis: redisconfig.Redis{MasterName: master}}
	for _, s := range w.sentinels {
		cfg.Addr = append(cfg.Addr, s.Addr())
	}
	var out bytes.Buffer
	cfg.Out, cfg.Name = &out, func(addr string) string { return addr }
	s := newServers(cfg)
	defer s.close()
	o := &operation{cfg: cfg, servers: s}
	watch, err := o.ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	replicas, err := o.replicas(t.Context(), watch)
	if err != nil {
		t.Fatal(err)
	}
	w.replicas[1].Pause()
	if _, err := o.promote(t.Context(), watch, replicas); err == nil || !strings.Contains(err.Error(), w.replicas[1].Addr()) {
		t.Errorf("error %v, want it to contain %s", err, w.replicas[1].Addr())
	}
	if !strings.Contains(out.String(), w.primary.Addr()+" accepts writes again") {
		t.Errorf("the report is\n%s", out.String())
	}
	w.writable(t)
	w.replicas[1].Resume()

	// The pause also ends when the caller cancels the context while writes are paused.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.promote(ctx, watch, replicas); err == nil {
		t.Error("a cancelled failover succeeded")
	}
	w.writable(t)
}

// A Sentinel that last saw a Redis replica as a primary would undo its promotion, so the failover starts
// only after all Sentinels have refreshed their view.
func TestBySentinelWaitsForFreshViews(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	d := redistest.StartSentinel(t, redistest.SentinelOptions{}) // not Quick: they refresh every 10 s
	cfg := Config{Redis: redisconfig.Redis{MasterName: master, Addr: d.Addrs()}}
	// mistaken returns the number of Sentinels that list a Redis replica as a primary.
	mistaken := func() (n int) {
		for _, s := range d.Sentinels() {
			cmd := redis.NewMapStringStringSliceCmd(t.Context(), "sentinel", "replicas", master)
			if err := s.Client(t).Process(t.Context(), cmd); err != nil {
				t.Fatal(err)
			}
			for _, r := range cmd.Val() {
				if r["role-reported"] == "master" {
					n++
				}
			}
		}
		return n
	}
	replica, primary := d.Servers()[1], d.Servers()[0]
	if err := replica.Client(t).Do(t.Context(), "replicaof", "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
	eventually.Nil(t, func() error {
		if n := mistaken(); n < len(d.Sentinels()) {
			return fmt.Errorf("%d Sentinels have refreshed their view", n)
		}
		return nil
	})
	replica.ReplicaOf(primary)
	replica.WaitReplicaInSync(primary)
	if mistaken() == 0 {
		t.Fatal("the Sentinels have refreshed their view before the failover started")
	}
	atPause := -1
	cfg.Out = writerFunc(func(line []byte) (int, error) {
		if bytes.Contains(line, []byte("paused")) {
			atPause = mistaken()
		}
		return len(line), nil
	})
	if err := Run(t.Context(), cfg); err != nil || atPause != 0 {
		t.Errorf("writes were paused while %d Sentinels listed a Redis replica as a primary (%v)", atPause, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestSingle(t *testing.T) {
	err := Run(t.Context(), Config{Redis: redisconfig.Redis{Addr: []string{"127.0.0.1:6379"}}})
	if !errors.Is(err, ErrSingle) {
		t.Errorf("error %v", err)
	}
	var out, errs bytes.Buffer
	if code := Main([]string{"-redis-addr=127.0.0.1:6379"}, func(string) string { return "" }, &out, &errs); code != 1 || !strings.Contains(errs.String(), "nothing to fail over to") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
	if code := Main([]string{"-redis-addr=nonsense"}, func(string) string { return "" }, &out, &errs); code != daemon.ExitConfig {
		t.Errorf("exit code %d for a configuration that cannot work", code)
	}
}
