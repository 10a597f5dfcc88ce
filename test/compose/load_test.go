//go:build compose

package compose

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// reads sends reads of one URL at a steady rate. Each must return 200.
type reads struct {
	client *http.Client
	url    string
	stop   chan struct{} // closed by end
	all    sync.WaitGroup

	mu     sync.Mutex // guards all fields below
	done   int
	failed int
	first  error
}

// startReads reads url over 8 connections until end is called.
func startReads(url string, perSecond int) *reads {
	const connections = 8
	r := &reads{client: newClient(connections), url: url, stop: make(chan struct{})}
	for range connections {
		r.all.Go(func() {
			tick := time.NewTicker(connections * time.Second / time.Duration(perSecond))
			defer tick.Stop()
			for {
				select {
				case <-r.stop:
					return
				case <-tick.C:
				}
				r.count(r.read())
			}
		})
	}
	return r
}

func (r *reads) read() error {
	res, err := r.client.Get(r.url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the response of %s: %w", res.Header.Get("X-Served-By"), err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s returned %s: %.200s", res.Header.Get("X-Served-By"), res.Status, body)
	}
	return nil
}

func (r *reads) count(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	if err != nil {
		r.failed++
		if r.first == nil {
			r.first = err
		}
	}
}

// await blocks until n more reads are done.
func (r *reads) await(t testing.TB, n int) {
	t.Helper()
	n += r.finished()
	eventually(t, 30*time.Second, func() error {
		if done := r.finished(); done < n {
			return fmt.Errorf("%d of %d reads are done", done, n)
		}
		return nil
	})
}

func (r *reads) finished() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// end stops the reads. The test fails if a read failed or none was made.
func (r *reads) end(t testing.TB) {
	t.Helper()
	close(r.stop)
	r.all.Wait()
	t.Logf("%d reads, %d failed", r.done, r.failed)
	if r.done == 0 {
		r.first = errors.New("nothing was read")
	}
	if r.first != nil {
		t.Errorf("first failed read: %v", r.first)
	}
}

// underReads calls f while posts are read through the gateway. No read may fail.
func underReads(t *testing.T, f func()) {
	t.Helper()
	const perSecond = 400
	r := startReads(gateway+"/post?id=check", perSecond)
	defer r.end(t)
	r.await(t, perSecond)
	f()
	r.await(t, perSecond)
}

// maxInFlight is the maximum number of writes in flight.
const maxInFlight = 200

// writes creates posts at a steady rate.
type writes struct {
	client *http.Client
	prefix string        // prefix of the ids
	stop   chan struct{} // closed by end
	ended  chan struct{} // closed by run when no write is in flight any more

	mu       sync.Mutex // guards all fields below
	ids      []string   // ids of the acknowledged posts
	last     time.Time  // time of the last acknowledgement
	pause    time.Duration
	failures map[string]int // number of failed writes by response
}

// startWrites creates 100 posts a second until end is called.
func startWrites(prefix string) *writes {
	w := &writes{
		client: newClient(64), prefix: prefix, stop: make(chan struct{}), ended: make(chan struct{}),
		last: time.Now(), failures: make(map[string]int),
	}
	go w.run(10 * time.Millisecond)
	return w
}

func (w *writes) run(period time.Duration) {
	defer close(w.ended)
	tick := time.NewTicker(period)
	defer tick.Stop()
	var all sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			all.Wait()
			w.acknowledge() // counts a pause that lasts until the end
			return
		case <-tick.C:
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprint(w.prefix, n)
			if failure := w.write(id); failure != "" {
				w.mu.Lock()
				w.failures[failure]++
				w.mu.Unlock()
				return
			}
			w.acknowledge(id)
		})
	}
}

func (w *writes) acknowledge(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.pause = max(w.pause, now.Sub(w.last))
	w.last = now
	w.ids = append(w.ids, ids...)
}

func (w *writes) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ids)
}

// write returns why a write failed, or "" when it was acknowledged.
func (w *writes) write(id string) string {
	res, err := w.client.Post(writer+"/create", "application/json", strings.NewReader(`{"id":"`+id+`","title":"t","content":"c"}`))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	if res.StatusCode != http.StatusCreated {
		return fmt.Sprintf("%s: %.300s", res.Status, body)
	}
	return ""
}

// end stops the writes and waits for those in flight.
func (w *writes) end(t testing.TB) {
	t.Helper()
	close(w.stop)
	<-w.ended
	t.Logf("%d writes acknowledged, none for %.1f s at the longest", len(w.ids), w.pause.Seconds())
	for response, n := range w.failures {
		t.Logf("%d times %s", n, response)
	}
}

// await blocks until n more writes are acknowledged.
func (w *writes) await(t testing.TB, n int) {
	t.Helper()
	n += w.acknowledged()
	eventually(t, 30*time.Second, func() error {
		if done := w.acknowledged(); done < n {
			return fmt.Errorf("%d of %d writes are acknowledged", done, n)
		}
		return nil
	})
}

// underWrites calls f while posts are written. The longest time without an acknowledged write is bounded, and in the
// end every server and every reader must have every acknowledged post.
func underWrites(t *testing.T, longest time.Duration, f func()) {
	t.Helper()
	w := startWrites(fmt.Sprint(time.Now().UnixNano(), "-"))
	func() {
		defer w.end(t)
		w.await(t, 100)
		f()
		w.await(t, 100)
	}()
	if w.pause > longest {
		t.Fatalf("no write was acknowledged for %v, want at most %v", w.pause, longest)
	}
	eventually(t, 20*time.Second, converged)
	everywhere(t, w.ids)
}

// everywhere fails the test unless every server and every reader has each of the posts.
func everywhere(t testing.TB, ids []string) {
	t.Helper()
	for _, service := range servers {
		keys, err := redisCLI(service, "--scan", "--pattern", "{posts:0}:p:*")
		if err != nil {
			t.Fatal(err)
		}
		have := make(map[string]bool)
		for _, key := range lines(keys) {
			have[strings.TrimPrefix(key, "{posts:0}:p:")] = true
		}
		missing := 0
		for _, id := range ids {
			if !have[id] {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s lacks %d of %d acknowledged posts", service, missing, len(ids))
		}
	}
	addresses, err := readers()
	if err != nil {
		t.Fatal(err)
	}
	if len(addresses) != 4 {
		t.Errorf("there are %d readers, want 4", len(addresses))
	}
	for _, address := range addresses {
		for _, id := range ids {
			if _, err := get("http://" + address + "/post?id=" + id); err != nil {
				t.Errorf("a reader lacks an acknowledged post: %v", err)
				break
			}
		}
	}
}
