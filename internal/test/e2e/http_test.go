package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/workload"
)

// P7: a read with the version of a write returns that write or a newer one, on every reader, even though the
// readers receive the messages late.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t)
	writerAddr := serveWriter(t, server.Addr())
	var readers []string
	var links []*faultnet.Proxy
	for i := range 3 {
		link := faultnet.NewProxy(t, server.Addr())
		link.Only(faultnet.Contains("subscribe")).Delay(toClient, time.Duration(i)*60*time.Millisecond)
		links = append(links, link)
		readers = append(readers, serveReader(t, link.Addr(), fmt.Sprint("reader-", i+1)))
	}
	first, err := create(writerAddr, newPost{ID: "first", Title: "title"})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range readers { // wait until all have the epoch
		eventually.Nil(t, func() error {
			res, err := get(addr, target("first"))
			if err != nil || res.header.Get("X-Version") != first.header.Get("X-Version") {
				return fmt.Errorf("%d %s (%v)", res.status, res.body, err)
			}
			return nil
		})
	}
	var clients sync.WaitGroup
	var answered, unavailable atomic.Int64
	for c := range 4 {
		clients.Go(func() {
			for i := range 25 {
				content := fmt.Sprintf("client %d, post %d", c, i)
				id := fmt.Sprint("post", i%10)
				written, err := create(writerAddr, newPost{ID: id, Title: "title", Content: content})
				if err != nil || written.status >= 300 {
					t.Errorf("POST /create: %d %s %v", written.status, written.body, err)
					return
				}
				for _, addr := range readers {
					res, err := get(addr, target(id), "X-Min-Version", written.header.Get("X-Version"))
					if err == nil && res.status == http.StatusServiceUnavailable {
						unavailable.Add(1)
						continue
					}
					if err != nil || res.status != http.StatusOK {
						t.Errorf("GET: %d %s %v", res.status, res.body, err)
						continue
					}
					answered.Add(1)
					if err := notOlder(&res, &written, content); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	clients.Wait()
	t.Logf("%d reads were answered, %d timed out", answered.Load(), unavailable.Load())
	if answered.Load() < 9*unavailable.Load() {
		t.Errorf("%d of %d reads timed out", unavailable.Load(), answered.Load()+unavailable.Load())
	}

	// A token of another epoch is ignored.
	for _, addr := range readers {
		res, err := get(addr, target("post1"), "X-Min-Version", "0123456789abcdef-999999999")
		if err != nil || res.status != http.StatusOK {
			t.Errorf("a token of another epoch: %d %s %v", res.status, res.body, err)
		}
	}

	// A reader that is cut off from Redis answers 503 in time.
	links[1].Refuse(true)
	links[1].Cut()
	links[2].BlackHole(toClient, true)
	for i := range 3 {
		content := fmt.Sprint("while two readers are cut off ", i)
		written, err := create(writerAddr, newPost{ID: "post1", Title: "title", Content: content})
		if err != nil || written.status != http.StatusOK {
			t.Fatalf("POST /create: %d %s %v", written.status, written.body, err)
		}
		for n, addr := range readers {
			res, err := get(addr, target("post1"), "X-Min-Version", written.header.Get("X-Version"))
			if err != nil {
				t.Fatal(err)
			}
			if res.took > 2*time.Second { // 500 ms, with a margin for a busy machine
				t.Errorf("reader-%d took %v", n+1, res.took)
			}
			if n == 0 && res.status != http.StatusOK || n > 0 && res.status != http.StatusServiceUnavailable {
				t.Errorf("reader-%d answers %d %s", n+1, res.status, res.body)
			}
			if res.status == http.StatusOK {
				if err := notOlder(&res, &written, content); err != nil {
					t.Error(err)
				}
			} else if res.header.Get("Retry-After") == "" {
				t.Errorf("reader-%d answers %d without Retry-After", n+1, res.status)
			}
			// Without the token it serves from memory.
			if res, err := get(addr, target("post1")); err != nil || res.status != http.StatusOK {
				t.Errorf("reader-%d without the token: %d %s %v", n+1, res.status, res.body, err)
			}
		}
	}
}

// P7 for the very first write: a reader of an empty Redis has no epoch yet, so it must not ignore the token as
// one of another epoch.
func TestReadYourFirstWrite(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t)
	writerAddr := serveWriter(t, server.Addr())
	link := faultnet.NewProxy(t, server.Addr())
	link.Only(faultnet.Contains("subscribe")).Delay(toClient, 200*time.Millisecond)
	readerAddr := serveReader(t, link.Addr(), "reader")
	written, err := create(writerAddr, newPost{ID: "first", Title: "title", Content: "content"})
	if err != nil || written.status != http.StatusCreated {
		t.Fatalf("POST /create: %d %s %v", written.status, written.body, err)
	}
	res, err := get(readerAddr, target("first"), "X-Min-Version", written.header.Get("X-Version"))
	if err != nil || res.status != http.StatusOK {
		t.Fatalf("the first post, with its version: %d %s (%v)", res.status, res.body, err)
	}
	if err := notOlder(&res, &written, "content"); err != nil {
		t.Error(err)
	}
}

// notOlder returns an error if a response is older than a write, or has its version with another content.
func notOlder(res, written *response, content string) error {
	want, err := written.version()
	if err != nil {
		return err
	}
	got, err := res.version()
	if err != nil {
		return err
	}
	if got.Epoch != want.Epoch || got.Version < want.Version {
		return fmt.Errorf("version %v after X-Min-Version: %v", got, want)
	}
	if c := postContent(string(res.body)); got == want && string(c) != content {
		return fmt.Errorf("version %v has %q, want %q", got, c, content)
	}
	return nil
}

// The writer answers within 2 s whatever Redis does. If only the reply was lost, it still reports the true
// outcome.
func TestWriterAnswersInTime(t *testing.T) {
	w := newWorld(t, setup{replicas: 1, content: func(v string) []byte { return postContent(v) }})
	addr := serveWriter(t, w.uplink.Addr())
	if _, err := w.createBy(addr, "a"); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		name   string
		do     func()
		status int
		detail string // alternatives are separated by |
	}{
		{"reply swallowed", func() { w.uplink.OnceContains(toServer, writeOfA, faultnet.SwallowReply) }, 200, ""},
		{"request swallowed", func() { w.uplink.OnceContains(toServer, writeOfA, faultnet.Swallow) }, 503, "nothing was written"},
		{"connection cut", func() { w.uplink.OnceContains(toServer, writeOfA, faultnet.CutAtReply) }, 200, ""},
		// The second answer is that of a writer whose own check has found Redis unreachable before the write arrives.
		{"Redis unreachable", func() { w.uplink.Refuse(true); w.uplink.Cut() }, 503, "may or may not have taken place|nothing was written"},
		{"Redis paused", func() { w.redis.Pause() }, 503, "may or may not have taken place"},
	} {
		fault.do()
		began := time.Now()
		res, err := w.createBy(addr, "a")
		took := time.Since(began)
		if failed := res.status == http.StatusServiceUnavailable; res.status != fault.status || !containsAny(string(res.body), fault.detail) ||
			failed != (res.header.Get("Retry-After") != "") || failed != strings.HasPrefix(res.header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %d %v %s (%v)", fault.name, res.status, res.header, res.body, err)
		}
		if took > 3*time.Second { // 2 s, with a margin for a busy machine
			t.Errorf("%s: the writer answered after %v", fault.name, took)
		}
		t.Logf("%s: answered in %v: %s", fault.name, took.Round(time.Millisecond), res.body)
		w.redis.Resume()
		w.uplink.Heal()
		eventually.Nil(t, func() error {
			_, err := w.createBy(addr, "b")
			return err
		})
	}
	w.verify()
}

// containsAny reports whether s contains one of the alternatives, which are separated by |.
func containsAny(s, alternatives string) bool {
	return slices.ContainsFunc(strings.Split(alternatives, "|"), func(a string) bool { return strings.Contains(s, a) })
}

// TestPropagation measures the time from a POST until every reader has the post in memory, at 200 writes/s.
func TestPropagation(t *testing.T) {
	w := newWorld(t, setup{content: func(v string) []byte { return postContent(v) }})
	addr := serveWriter(t, w.redis.Addr())
	const posts = 600
	var visible [posts]time.Duration
	var watching sync.WaitGroup
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range posts {
		<-tick.C
		id := fmt.Sprint("post", i)
		began := time.Now()
		watching.Go(func() {
			for _, r := range w.readers {
				deadline := began.Add(patience)
				for {
					if _, found := r.replica.Get([]byte(id)); found == 1 {
						break
					}
					if time.Now().After(deadline) {
						t.Errorf("%s has not received %s", r.name, id)
						return
					}
					time.Sleep(50 * time.Microsecond) // between polls
				}
			}
			visible[i] = time.Since(began)
		})
		if _, err := w.createBy(addr, id); err != nil {
			t.Fatal(err)
		}
	}
	watching.Wait()
	slices.Sort(visible[:])
	t.Logf("POST to visible in every reader, %d posts: p50 %v, p99 %v", posts, visible[posts/2], visible[posts*99/100])
	for _, r := range w.readers {
		p50, p99, n := r.quantiles(t, "cache_propagation_seconds")
		t.Logf("%s: cache_propagation_seconds of %d messages: p50 below %v, p99 below %v", r.name, n, p50, p99)
		if n < posts*8/10 { // a probe may apply a write before its message arrives
			t.Errorf("%s received %d of %d posts through the channel", r.name, n, posts)
		}
	}
	w.verify()
}

// quantiles returns the upper bounds of the histogram buckets with the median and the p99, and the number of
// observations.
func (r *follower) quantiles(t testing.TB, name string) (p50, p99 time.Duration, n uint64) {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		n = h.GetSampleCount()
		bound := func(share float64) time.Duration {
			for _, b := range h.GetBucket() {
				if float64(b.GetCumulativeCount()) >= share*float64(n) {
					return time.Duration(b.GetUpperBound() * float64(time.Second))
				}
			}
			return time.Hour // beyond the last bucket
		}
		return bound(0.5), bound(0.99), n
	}
	t.Fatalf("no metric %s", name)
	return 0, 0, 0
}

// A real data set is imported by the writer and read back through the gateway.
func TestFortunes(t *testing.T) {
	t.Parallel()
	texts := fortunes(t)
	redistest.Require(t)
	server := redistest.Start(t)
	writerAddr := serveWriter(t, server.Addr())
	var readers []string
	for i := range 3 {
		readers = append(readers, serveReader(t, server.Addr(), fmt.Sprint("reader-", i+1)))
	}
	gatewayAddr := serveGateway(t, readers...)

	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for id, text := range texts {
		if err := out.Encode(newPost{ID: id, Title: "fortune", Content: text}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	res, err := do(http.MethodPost, writerAddr, "/import", lines.Bytes(), "Content-Type", "application/x-ndjson")
	if err != nil || res.status != http.StatusOK {
		t.Fatalf("POST /import: %d %s %v", res.status, res.body, err)
	}
	t.Logf("%d texts imported in %v: %s", len(texts), time.Since(began).Round(time.Millisecond), res.body)
	var summary struct {
		Status  string
		Created int
	}
	if err := json.Unmarshal(res.body, &summary); err != nil || summary.Status != "done" || summary.Created != len(texts) {
		t.Fatalf("POST /import answers %s (%v), want %d created", res.body, err, len(texts))
	}
	eventually.Nil(t, func() error { // wait until the readers have every post
		for _, addr := range readers {
			res, err := get(addr, "/status")
			var status struct {
				Entries int  `json:"entries"`
				Synced  bool `json:"synced"`
			}
			if err == nil {
				err = json.Unmarshal(res.body, &status)
			}
			if err != nil || status.Entries != len(texts) || !status.Synced {
				return fmt.Errorf("%s has %s (%v), want %d posts", addr, res.body, err, len(texts))
			}
		}
		return nil
	})

	ids := make(chan string)
	var clients sync.WaitGroup
	var wrong atomic.Int64
	served := map[string]int{}
	var mu sync.Mutex // guards served
	for range 4 {
		clients.Go(func() {
			for id := range ids {
				res, err := get(gatewayAddr, target(id))
				if err != nil || res.status != http.StatusOK || string(postContent(string(res.body))) != texts[id] {
					if wrong.Add(1) < 5 {
						t.Errorf("%s: %d %.200q (%v), want %.200q", id, res.status, res.body, err, texts[id])
					}
				}
				mu.Lock()
				served[res.header.Get("X-Served-By")]++
				mu.Unlock()
			}
		})
	}
	for id := range texts {
		ids <- id
	}
	close(ids)
	clients.Wait()
	t.Logf("%d texts read back, %d wrong, by reader: %v", len(texts), wrong.Load(), served)
	if wrong.Load() > 0 || len(served) != 3 {
		t.Errorf("%d of %d texts are wrong; served by %v", wrong.Load(), len(texts), served)
	}
}

// fortunes returns the texts of Debian's fortunes package, by id.
func fortunes(t *testing.T) map[string]string {
	t.Helper()
	all, err := workload.Fortunes()
	if err != nil {
		t.Skip(err)
	}
	texts := map[string]string{}
	for _, f := range all {
		texts[f.Name] = f.Text
	}
	if len(texts) < 10_000 {
		t.Fatalf("%d texts, want at least 10,000", len(texts))
	}
	return texts
}
