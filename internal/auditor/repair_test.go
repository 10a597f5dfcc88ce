package auditor

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	goredis "github.com/redis/go-redis/v9"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// fakeReader answers with a digest of the test's choice at the head of the auditor's copy.
type fakeReader struct {
	name    string
	right   replica.Digest
	wrong   atomic.Bool
	loading atomic.Bool  // has no digest
	reloads atomic.Int64 // requests for a snapshot
}

func (f *fakeReader) serve(others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case audit.Path:
			d := f.right
			if f.wrong.Load() {
				d.Value++
			}
			report := audit.Report{PodID: f.name}
			if !f.loading.Load() {
				report.Digests = []audit.Digest{*audit.NewDigest(&d)}
			}
			httpkit.JSON(w, http.StatusOK, report)
		case audit.SnapshotPath:
			f.reloads.Add(1)
			w.WriteHeader(http.StatusAccepted)
		default:
			others.ServeHTTP(w, r)
		}
	})
}

// newAuditor returns an auditor that does not run, with a copy of a real Redis, and its log.
func newAuditor(t *testing.T, redis string, local store.Config) (*auditor, *logtest.Buffer) {
	var lines logtest.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	local.Checksums = true
	own, err := replica.New(replica.Config{Redis: nodetest.New(t, redis), Local: local, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { own.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		own.Close()
	})
	return &auditor{
		log: log, client: audit.NewClient(), replica: own, metrics: newMetrics(prometheus.NewRegistry()),
		now: time.Now, repairs: make(map[string]repair),
	}, &lines
}

// write writes posts.
func write(t *testing.T, redis, prefix string, posts int) {
	t.Helper()
	writer, err := publisher.New(publisher.Config{Redis: nodetest.New(t, redis)})
	if err != nil {
		t.Fatal(err)
	}
	var writes []protocol.Write
	for i := range posts {
		writes = append(writes, protocol.Write{Op: protocol.Set, Key: fmt.Sprint(prefix, i), Value: []byte("x")})
	}
	for some := range slices.Chunk(writes, 500) {
		if _, err := writer.Write(t.Context(), some...); err != nil {
			t.Fatal(err)
		}
	}
}

// newRepair returns an auditor that does not run, with a copy of a real Redis that has keys of other programs too, and the
// only reader that it compares with.
func newRepair(t *testing.T, others int) (*auditor, *fakeReader) {
	redis := redistest.Start(t)
	write(t, redis.Addr(), "post", 1)
	client := goredis.NewClient(&goredis.Options{Addr: redis.Addr()})
	defer client.Close()
	pipe := client.Pipeline()
	for i := range others {
		pipe.Set(t.Context(), fmt.Sprint("other", i), "x", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, _ := newAuditor(t, redis.Addr(), store.Config{})
	own := a.replica
	eventually.True(t, "the auditor's copy", func() bool { return own.Status().Digest != nil })
	reader := &fakeReader{name: "reader-1", right: *own.Status().Digest}
	router := httpkit.NewRouter(httpkit.NewHTTPMetrics(prometheus.NewRegistry()))
	audit.Register(router, own, "reader-1")
	a.compareWith(t, reader.serve(router))
	return a, reader
}

// compareWith adds a reader to those that a compares.
func (a *auditor) compareWith(t *testing.T, reader http.Handler) {
	server := httptest.NewServer(reader)
	t.Cleanup(server.Close)
	a.cfg.Readers = append(a.cfg.Readers, strings.TrimPrefix(server.URL, "http://"))
}

// slowScan is a number of keys of other programs for which a scan takes longer than a few comparisons.
const slowScan = 200_000

// compareUntil compares until done returns true.
func compareUntil(t *testing.T, a *auditor, what string, done func() bool) {
	t.Helper()
	eventually.True(t, what, func() bool {
		a.compare(t.Context())
		return done()
	})
}

// A reader that differs from Redis loads a snapshot once Redis has been scanned after the difference was seen, also if it is
// the only one and nothing can be compared during the scan.
func TestRepairFollowsAScan(t *testing.T) {
	a, reader := newRepair(t, slowScan)
	compareUntil(t, a, "agreement with Redis", func() bool { return !a.agreedAt.IsZero() })
	first := a.replica.Status().SnapshotAt
	reader.wrong.Store(true)
	scanning, compared := 0, 0 // comparisons in a row that ended during a scan; the most
	compareUntil(t, a, "repair", func() bool {
		if scanning++; a.replica.Status().Snapshot == nil {
			scanning = 0
		}
		compared = max(compared, scanning)
		if reader.reloads.Load() > 0 && !a.replica.Status().SnapshotAt.After(first) {
			t.Fatal("the reader loads a snapshot before Redis has been scanned")
		}
		return reader.reloads.Load() > 0
	})
	if compared < 2 {
		t.Error("no whole comparison was made during the scan")
	}
	reader.wrong.Store(false)
	compareUntil(t, a, "agreement after the repair", func() bool { return a.suspectedAt.IsZero() })
	if n := reader.reloads.Load(); n != 1 {
		t.Errorf("the reader was asked for %d snapshots, want 1", n)
	}
}

// A scan that runs when the difference is seen decides nothing: what it has read before may have changed since.
func TestRepairNeedsALaterScan(t *testing.T) {
	a, reader := newRepair(t, slowScan)
	eventually.True(t, "a scan", func() bool {
		_ = a.replica.Reload(t.Context()) // refused shortly after the first one
		return a.replica.Status().Snapshot != nil
	})
	a.suspectedAt = time.Now() // as when two readers differ
	reader.wrong.Store(true)
	compareUntil(t, a, "repair", func() bool {
		s := a.replica.Status()
		if reader.reloads.Load() > 0 && s.Snapshot == nil && s.SnapshotAt.Add(-s.SnapshotIn).Before(a.suspectedAt) {
			t.Fatal("the reader loads a snapshot because of an earlier scan")
		}
		return reader.reloads.Load() > 0
	})
}

// A scan that shows that the auditor's own copy was wrong leaves the readers alone.
func TestNoRepairIfRedisAgrees(t *testing.T) {
	a, reader := newRepair(t, slowScan)
	compareUntil(t, a, "agreement with Redis", func() bool { return !a.agreedAt.IsZero() })
	first := a.replica.Status().SnapshotAt
	reader.wrong.Store(true)
	compareUntil(t, a, "scan", func() bool {
		if reader.reloads.Load() > 0 {
			t.Fatal("the reader loads a snapshot before Redis has been scanned")
		}
		return a.replica.Status().Snapshot != nil || a.replica.Status().SnapshotAt.After(first)
	})
	reader.wrong.Store(false)
	compareUntil(t, a, "agreement after the scan", func() bool { return a.suspectedAt.IsZero() && a.agreedAt.After(first) })
	if n := reader.reloads.Load(); n != 0 {
		t.Errorf("the reader was asked for %d snapshots, want none", n)
	}
}

// A reader that still differs after a snapshot loads the next one after a pause that doubles up to a bound, because each of
// them loads all posts from Redis. The pause is the first one again once the reader was identical.
func TestRepairsBackOff(t *testing.T) {
	a, reader := newRepair(t, 0)
	var passed time.Duration
	a.now = func() time.Time { return time.Now().Add(passed) }
	fail := func() {
		reader.wrong.Store(true)
		compareUntil(t, a, "repair", func() bool { return reader.reloads.Load() > 0 })
	}
	// wait returns the pause before the next snapshot, in steps of one first pause.
	wait := func() (steps int) {
		before := reader.reloads.Load()
		for range 3 { // until nothing but the pause delays a repair
			a.compare(t.Context())
		}
		for ; reader.reloads.Load() == before && steps < 100; steps++ {
			passed += repairPause
			a.compare(t.Context())
		}
		return steps
	}
	fail()
	want := []int{1, 2, 4, 8, 16, 32, int(maxRepairPause / repairPause), int(maxRepairPause / repairPause)}
	for i := range want {
		if steps := wait(); steps != want[i] {
			t.Fatalf("snapshot %d after %d times %v, want %d times", i+2, steps, repairPause, want[i])
		}
	}
	a.compare(t.Context())
	if r := a.verdict.get(); !strings.Contains(r.Summary, "reader-1 was repaired 9 times, next try in ") || r.Readers[0].Snapshots != 9 || r.Readers[0].NextSnapshot == nil {
		t.Errorf("the report does not say when the next snapshot comes: %+v", r)
	}
	reader.wrong.Store(false)
	compareUntil(t, a, "agreement", func() bool { return len(a.repairs) == 0 })
	if r := a.verdict.get(); r.Readers[0].Snapshots != 0 || r.Readers[0].NextSnapshot != nil {
		t.Errorf("the report of an identical reader: %+v", r.Readers[0])
	}
	reader.reloads.Store(0)
	fail()
	if steps := wait(); steps != 1 {
		t.Errorf("after an agreement, the second snapshot comes after %d times %v, want once", steps, repairPause)
	}
}

// While the wrong reader loads a snapshot, the other readers are identical with Redis. That does not reset its pause.
func TestOtherReadersDoNotResetThePause(t *testing.T) {
	a, reader := newRepair(t, 0)
	a.compareWith(t, (&fakeReader{name: "reader-2", right: reader.right}).serve(http.NotFoundHandler()))
	reader.wrong.Store(true)
	compareUntil(t, a, "repair", func() bool { return reader.reloads.Load() > 0 })
	reader.loading.Store(true)
	compareUntil(t, a, "agreement of the others", func() bool { return a.suspectedAt.IsZero() })
	reader.loading.Store(false)
	compareUntil(t, a, "another scan", func() bool {
		own := a.replica.Status()
		return !a.suspectedAt.IsZero() && own.SnapshotAt.Add(-own.SnapshotIn).After(a.suspectedAt)
	})
	a.compare(t.Context())
	if n := reader.reloads.Load(); n != 1 {
		t.Errorf("the reader was asked for %d snapshots within the first pause, want 1", n)
	}
}

// An auditor whose memory is too small for all posts says so, does not claim that a reader is identical with Redis, and
// repairs none. It compares with Redis again once all posts fit.
func TestTooSmallForAllPosts(t *testing.T) {
	redistest.Require(t)
	redis := redistest.Start(t)
	write(t, redis.Addr(), "post", 5)
	a, log := newAuditor(t, redis.Addr(), store.Config{MaxSize: 64 << 10})
	eventually.True(t, "the auditor's copy", func() bool { return a.replica.Status().Digest != nil })
	readers := []*fakeReader{{name: "reader-1", right: *a.replica.Status().Digest}, {name: "reader-2", right: *a.replica.Status().Digest}}
	for _, r := range readers {
		a.compareWith(t, r.serve(http.NotFoundHandler()))
	}
	fits := func() *bool { a.compare(t.Context()); return a.verdict.get().CopyComplete }
	eventually.True(t, "agreement", func() bool { c := fits(); return c != nil && *c && !a.agreedAt.IsZero() })
	if r := a.verdict.get(); r.Status != "ready" || testutil.CollectAndCount(a.metrics, "audit_redis_identical") != 1 {
		t.Fatalf("%+v", r)
	}

	write(t, redis.Addr(), "more", 5000)
	eventually.True(t, "the posts do not fit", func() bool { c := fits(); return c != nil && !*c })
	r := a.verdict.get()
	if r.Status != "degraded" || !strings.Contains(r.Summary, "the posts do not fit into AUDIT_MAX_SIZE") || r.Identical == nil || !*r.Identical {
		t.Errorf("%+v", r)
	}
	if testutil.CollectAndCount(a.metrics, "audit_redis_identical") != 0 {
		t.Error("audit_redis_identical has a value although the auditor does not have all posts")
	}
	if err := testutil.CollectAndCompare(a.metrics, strings.NewReader("# HELP audit_copy_complete 1 if all posts fit into AUDIT_MAX_SIZE, 0 if not: then the readers are not compared with Redis, and none is repaired; absent before the first scan.\n# TYPE audit_copy_complete gauge\naudit_copy_complete 0\n"), "audit_copy_complete"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "THE POSTS DO NOT FIT INTO AUDIT_MAX_SIZE"); n != 1 {
		t.Errorf("%d lines say that the posts do not fit, want 1", n)
	}
	scans := a.replica.Status().SnapshotAt
	readers[1].wrong.Store(true)
	compareUntil(t, a, "log line about the difference", func() bool { return strings.Contains(log.String(), "cannot find out which reader is wrong") })
	for range 5 {
		a.compare(t.Context())
	}
	if readers[0].reloads.Load()+readers[1].reloads.Load() > 0 || !a.replica.Status().SnapshotAt.Equal(scans) {
		t.Error("a reader was repaired, or Redis scanned, although a scan decides nothing")
	}

	readers[1].wrong.Store(false)
	if err := redis.Client(t).FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	write(t, redis.Addr(), "post", 5)
	eventually.True(t, "the posts fit again", func() bool { c := fits(); return c != nil && *c })
	if r := a.verdict.get(); r.Status != "ready" || strings.Contains(r.Summary, "AUDIT_MAX_SIZE") {
		t.Errorf("%+v", r)
	}
}
