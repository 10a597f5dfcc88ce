package replica_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/auditor"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// Real replicas behind the endpoints of a reader, and a real auditor.

const auditedKeys = 3000

// fleet is three replicas, their writer and an auditor.
type fleet struct {
	t         *testing.T
	replicas  []*replica.Replica
	publisher *publisher.Publisher
	auditor   string // its address
	log       *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newFleet(t *testing.T) *fleet {
	redis := redistest.Start(t)
	f := &fleet{t: t, log: new(syncBuffer)}
	var err error
	if f.publisher, err = publisher.New(publisher.Config{Redis: nodetest.New(t, redis.Addr())}); err != nil {
		t.Fatal(err)
	}
	for i := range auditedKeys {
		f.set(fmt.Sprint("post", i), fmt.Sprint("first ", i))
	}
	log := slog.New(slog.NewTextHandler(f.log, nil))
	var addrs []string
	for i := range 3 {
		r, err := replica.New(replica.Config{Redis: nodetest.New(t, redis.Addr()), Logger: log.With("reader", i), Probe: 100 * time.Millisecond, Scrub: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		f.replicas = append(f.replicas, r)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		router := httpkit.NewRouter(httpkit.NewHTTPMetrics(prometheus.NewRegistry()))
		audit.Register(router, r, fmt.Sprint("reader-", i))
		server := httptest.NewServer(router)
		t.Cleanup(func() {
			server.Close()
			cancel()
			running.Wait()
			r.Close()
		})
		addrs = append(addrs, strings.TrimPrefix(server.URL, "http://"))
	}
	listening, ended := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- auditor.Run(ctx, auditor.Config{
			Data: redisconfig.Data{
				Common: daemon.Common{Host: "127.0.0.1", Logger: log.With("reader", "auditor"), Listening: func(addr string) { listening <- addr }},
				Redis:  redisconfig.Redis{Addr: []string{redis.Addr()}},
			},
			Readers: addrs, Every: 100 * time.Millisecond, ScanPause: 6 * time.Second, ScanRate: 100_000,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the auditor ended: %v", err)
		}
		if t.Failed() {
			t.Log(f.log)
		}
	})
	f.auditor = <-listening
	return f
}

func (f *fleet) set(key, value string) {
	f.write(protocol.Write{Op: protocol.Set, Key: key, Value: []byte(value)})
}

func (f *fleet) write(w protocol.Write) {
	if _, err := f.publisher.Write(f.t.Context(), w); err != nil {
		f.t.Fatal(err)
	}
}

// verdict is a part of the auditor's /status.
type verdict struct {
	Identical *bool  `json:"identical"`
	Summary   string `json:"summary"`
	Readers   []struct{ State string }
	Differ    [][2]string         `json:"differ"`
	Redis     *float64            `json:"redis_agreed_seconds"`
	Wrong     map[string][]string `json:"wrong"`
}

func (f *fleet) verdict() (v verdict, err error) {
	res, err := http.Get("http://" + f.auditor + "/status")
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	return v, json.NewDecoder(res.Body).Decode(&v)
}

// identical waits until all three readers are identical with each other and with Redis.
func (f *fleet) identical() {
	f.t.Helper()
	eventually.Nil(f.t, func() error {
		v, err := f.verdict()
		if err != nil {
			return err
		}
		if v.Identical == nil || !*v.Identical || v.Redis == nil || !strings.HasPrefix(v.Summary, "3 readers identical") {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
}

// counter returns the sum of a metric of the auditor.
func (f *fleet) counter(name string) (sum float64) {
	f.t.Helper()
	res, err := http.Get("http://" + f.auditor + "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	_, _ = body.ReadFrom(res.Body)
	for line := range strings.Lines(body.String()) {
		var value float64
		if rest, ok := strings.CutPrefix(line, name); ok {
			if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}

// mended waits until the key of every replica has the value that Redis has; "" means absent.
func (f *fleet) mended(key, value string) {
	f.t.Helper()
	for i, r := range f.replicas {
		eventually.Nil(f.t, func() error {
			e, found := r.Get([]byte(key))
			if value == "" && found == store.Absent || value != "" && found == store.Hit && e.Value == value {
				return nil
			}
			return fmt.Errorf("reader-%d: %s is %v %q, want %q", i, key, found, e.Value, value)
		})
	}
}

// Faults of one running reader that no message, log step or probe can show are found, their keys are named, and a snapshot
// mends them, also while writes go on.
func TestAuditorFindsFaultsOfARunningReader(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("writes=", busy), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			if busy {
				stop, writing := make(chan struct{}), sync.WaitGroup{}
				writing.Go(func() {
					rng := rand.New(rand.NewPCG(1, 1))
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						case <-time.After(2 * time.Millisecond):
						}
						w := protocol.Write{Op: protocol.Set, Key: fmt.Sprint("busy", rng.IntN(200)), Value: fmt.Append(nil, i)}
						if rng.IntN(4) == 0 {
							w.Op, w.Value = protocol.Delete, nil
						}
						if _, err := f.publisher.Write(context.Background(), w); err != nil {
							t.Error(err)
							return
						}
					}
				})
				t.Cleanup(func() { close(stop); writing.Wait() })
			}
			f.identical()
			broken := f.replicas[1]
			for _, fault := range []struct {
				name  string
				do    func() error
				key   string
				value string
			}{
				{"swapped values", func() error { return broken.SwapValues(t.Context(), "post1", "post2") }, "post1", "first 1"},
				{"a skipped set", func() error {
					return broken.SkipMessage(t.Context(), "post3", func() { f.set("post3", "second 3") })
				}, "post3", "second 3"},
				{"a dropped delete", func() error {
					return broken.SkipMessage(t.Context(), "post4", func() { f.write(protocol.Write{Op: protocol.Delete, Key: "post4"}) })
				}, "post4", ""},
			} {
				found := f.counter("audit_differences_total")
				if err := fault.do(); err != nil {
					t.Fatalf("%s: %v", fault.name, err)
				}
				began := time.Now()
				eventually.Nil(t, func() error {
					if f.counter("audit_differences_total") == found {
						return fmt.Errorf("%s was not found", fault.name)
					}
					return nil
				})
				t.Logf("%s: found after %v", fault.name, time.Since(began).Round(10*time.Millisecond))
				f.mended(fault.key, fault.value)
				// The reader itself counts the keys in Redis every 5 s, and may be first to find the key that is too many.
				eventually.Nil(t, func() error {
					if fault.value == "" && strings.Contains(f.log.String(), "reader=1 reason=vanished") {
						return nil
					}
					v, err := f.verdict()
					if err != nil || !strings.Contains(strings.Join(v.Wrong["reader-1"], " "), `"`+fault.key+`"`) {
						return fmt.Errorf("%s: the verdict does not name %s of reader-1: %+v (%v)", fault.name, fault.key, v, err)
					}
					return nil
				})
				f.identical()
				t.Logf("%s: mended after %v", fault.name, time.Since(began).Round(10*time.Millisecond))
			}
			if got := f.counter("audit_differences_total"); got != 3 {
				t.Errorf("%v differences were found, want 3", got)
			}
		})
	}
}

// The scrub finds a flipped byte, and a snapshot mends it.
func TestScrubMendsAFlippedByte(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.identical()
	for i, r := range f.replicas {
		if err := r.FlipByte(fmt.Sprint("post", 10+i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range f.replicas {
		f.mended(fmt.Sprint("post", 10+i), fmt.Sprint("first ", 10+i))
	}
	f.identical()
	if n := strings.Count(f.log.String(), "MEMORY IS DAMAGED"); n != 3 {
		t.Errorf("the damage was logged %d times, want 3", n)
	}
	if got := f.counter("audit_differences_total"); got != 0 {
		t.Errorf("%v differences were found: the scrub mends a byte before it can change a digest", got)
	}
}

// A scan that took long because its rate is bounded does not put off the one that a difference requires.
func TestReloadAfterASlowScan(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p, err := publisher.New(publisher.Config{Redis: nodetest.New(t, b.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	var writes []protocol.Write
	for i := range 500 {
		writes = append(writes, protocol.Write{Op: protocol.Set, Key: fmt.Sprint(i), Value: []byte("x")})
	}
	if _, err := p.Write(t.Context(), writes...); err != nil {
		t.Fatal(err)
	}
	r, err := replica.New(replica.Config{Redis: nodetest.New(t, b.Addr()), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.SetScanRate(100)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer func() { cancel(); running.Wait(); r.Close() }()
	eventually.True(t, "a snapshot", func() bool { return !r.Status().SnapshotAt.IsZero() })
	r.SetScanRate(0)
	eventually.Nil(t, func() error { return r.Reload(t.Context()) })
	if s := r.Status(); time.Since(s.SnapshotAt) >= s.SnapshotIn {
		t.Errorf("the next snapshot had to wait %v", time.Since(s.SnapshotAt))
	}
}
