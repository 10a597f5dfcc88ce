package auditor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// fakeReader answers with a digest of the test's choice at the head of the auditor's copy.
type fakeReader struct {
	right   replica.Digest
	wrong   atomic.Bool
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
			httpkit.JSON(w, http.StatusOK, audit.Report{PodID: "reader-1", Digests: []audit.Digest{*audit.NewDigest(&d)}})
		case audit.SnapshotPath:
			f.reloads.Add(1)
			w.WriteHeader(http.StatusAccepted)
		default:
			others.ServeHTTP(w, r)
		}
	})
}

// newRepair returns an auditor that does not run, with a copy of a real Redis, and the only reader that it compares with.
func newRepair(t *testing.T) (*auditor, *fakeReader) {
	redis := redistest.Start(t)
	writer, err := publisher.New(publisher.Config{Redis: nodetest.New(t, redis.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: "post", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(&goredis.Options{Addr: redis.Addr()})
	defer client.Close()
	pipe := client.Pipeline()
	for i := range 200_000 { // keys of other programs, so that a scan takes longer than a few comparisons
		pipe.Set(t.Context(), fmt.Sprint("other", i), "x", 0)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	own, err := replica.New(replica.Config{Redis: nodetest.New(t, redis.Addr()), Local: store.Config{Checksums: true}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { own.Run(ctx) })
	eventually.True(t, "the auditor's copy", func() bool { return own.Status().Digest != nil })
	reader := &fakeReader{right: *own.Status().Digest}
	router := httpkit.NewRouter(httpkit.NewHTTPMetrics(prometheus.NewRegistry()))
	audit.Register(router, own, "reader-1")
	server := httptest.NewServer(reader.serve(router))
	t.Cleanup(func() {
		server.Close()
		stop()
		running.Wait()
		own.Close()
	})
	return &auditor{
		cfg: Config{Readers: []string{strings.TrimPrefix(server.URL, "http://")}}, log: log, client: audit.NewClient(),
		replica: own, metrics: newMetrics(prometheus.NewRegistry()), repairedAt: make(map[string]time.Time),
	}, reader
}

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
	a, reader := newRepair(t)
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
	a, reader := newRepair(t)
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
	a, reader := newRepair(t)
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
