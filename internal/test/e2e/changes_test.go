package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/history"
)

// client follows /changes like an EventSource, and resumes at the next address whenever its stream ends.
type client struct {
	w       *world
	name    string
	addrs   []string // it uses one after the other
	since   string   // id of the last event, or where it began
	at      protocol.Token
	state   history.State
	values  map[string]string
	got     map[uint64]string // events by version, as in logged
	events  atomic.Int64
	streams atomic.Int64  // streams that have begun
	version atomic.Uint64 // version of the last event
}

// follow follows until ctx is done. It checks that versions only grow and that each event is the write of its version, and
// records each as a read.
func (c *client) follow(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		if err := c.stream(ctx, c.addrs[i%len(c.addrs)]); err != nil {
			c.w.t.Errorf("%s at %s: %v", c.name, c.since, err)
			return
		}
		select { // the retry of a client
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stream follows one stream until it ends. It returns no error for an end that a client must expect.
func (c *client) stream(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/changes", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", c.since)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil // killed
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusBadGateway {
		return nil
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		return fmt.Errorf("%d %s", res.StatusCode, body)
	}
	c.streams.Add(1)
	lines := bufio.NewReader(res.Body)
	var id, event, data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil // an event without its empty line does not count
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if id != "" {
				c.since = id
			}
			if event != "" {
				if err := c.take(id, event, data); err != nil {
					return err
				}
			}
			id, event, data = "", "", ""
		}
	}
}

// take applies an event.
func (c *client) take(id, event, data string) error {
	at, err := protocol.ParseToken(id)
	if err != nil {
		return err
	}
	if at.Epoch != c.at.Epoch || at.Version <= c.at.Version {
		return fmt.Errorf("event %s after %v", id, c.at)
	}
	c.at = at
	key, _, _ := strings.Cut(data, " #")
	if event == "delete" {
		var post struct{ ID string }
		if err := json.Unmarshal([]byte(data), &post); err != nil {
			return err
		}
		key = post.ID
	}
	read := c.w.history.Read(c.name, key)
	switch event {
	case "set":
		if was, _ := c.w.origins.LoadOrStore(data, at); was != at {
			return fmt.Errorf("%q came as %s, it was written as %v", data, id, was)
		}
		c.state[key] = history.EntryOf(at.Epoch, at.Version, []byte(data))
		c.values[key] = data
		read.Value(at.Epoch, at.Version, []byte(data))
	case "delete":
		delete(c.state, key)
		delete(c.values, key)
		read.Absent()
	default:
		return fmt.Errorf("event %q", event)
	}
	c.got[at.Version] = event + " " + key
	c.version.Store(at.Version)
	c.events.Add(1)
	return nil
}

// Followers of /changes, of which one uses the gateway, get every change in order while readers and Redis are killed, and
// hold exactly what Redis holds once they have caught up.
func TestFollowersSurviveKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	start := func(i int, port string) *process {
		// With the smallest window, resuming clients need the log.
		return startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), fmt.Sprint("POD_ID=reader-", i), "CHANGES_WINDOW=64KiB", "PORT="+port)
	}
	w.fill("key", 40, 20)
	var readers []*process
	var addrs []string
	for i := range 3 {
		p := start(i, "0")
		waitReady(t, p.addr)
		readers, addrs = append(readers, p), append(addrs, p.addr)
	}
	gateway := serveGateway(t, addrs...)
	began := w.mustHead()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	var clients []*client
	for i, at := range [][]string{addrs, {addrs[1]}, {addrs[2], addrs[0]}, {gateway}} {
		c := &client{w: w, name: fmt.Sprint("client-", i), addrs: at, since: protocol.Position{Head: began}.String(), at: began.Token(),
			state: history.State{}, values: map[string]string{}, got: map[uint64]string{}}
		for _, s := range w.stored() {
			c.state[s.key] = history.EntryOf(s.token.Epoch, s.token.Version, []byte(s.value))
			c.values[s.key] = s.value
		}
		clients = append(clients, c)
		following.Go(func() { c.follow(ctx) })
	}
	// progress waits until every client has got more events.
	progress := func() {
		t.Helper()
		for _, c := range clients {
			waitMore(w, "events at "+c.name, &c.events, 20)
		}
	}
	stop := w.run(load{})
	progress()
	for round := range 6 {
		killed := round % 3
		readers[killed].kill()
		w.flow(300)
		if round%2 == 1 {
			w.redis.Kill()
			w.fail(10)
			w.redis.Restart()
			w.flow(100)
		}
		_, port, err := net.SplitHostPort(readers[killed].addr)
		if err != nil {
			t.Fatal(err)
		}
		readers[killed] = start(killed, port)
		waitReady(t, readers[killed].addr)
		progress()
	}
	stop()
	w.mustWrite(w.set("last", 0))
	end := w.mustHead()
	final, log := w.final(), w.logged(began.Version)
	for _, c := range clients {
		eventually.Nil(t, func() error {
			if t.Failed() {
				t.FailNow()
			}
			if c.events.Load() == 0 || c.version.Load() != end.Version {
				return fmt.Errorf("%s has %d events, not version %d", c.name, c.events.Load(), end.Version)
			}
			return nil
		})
	}
	cancel()
	following.Wait()
	for _, c := range clients {
		final.Readers[c.name] = c.state
		if len(c.values) != len(final.Redis) {
			t.Errorf("%s has %d posts, Redis %d", c.name, len(c.values), len(final.Redis))
		}
		for _, s := range w.stored() {
			if got := c.values[s.key]; got != s.value {
				t.Errorf("%s has %q as %s, Redis has %q", c.name, got, s.key, s.value)
			}
		}
		for version, event := range c.got {
			if log[version] != event {
				t.Errorf("%s got %q as version %d, which is %q", c.name, event, version, log[version])
			}
		}
		for version, write := range log {
			if c.got[version] == "" && strings.HasPrefix(write, "delete ") {
				t.Errorf("%s did not get version %d, %q", c.name, version, write)
			}
		}
		t.Logf("%s: %d events over %d streams", c.name, c.events.Load(), c.streams.Load())
		if c.streams.Load() < 2 {
			t.Errorf("%s has never resumed", c.name)
		}
	}
	t.Logf("%d writes were acknowledged, %d failed", w.acked.Load(), w.failed.Load())
	w.history.Verify(t, final)
}

// logged returns the writes in Redis's log after a version, by version, as "set <key>" or "delete <key>".
func (w *world) logged(after uint64) map[uint64]string {
	w.t.Helper()
	entries, err := w.direct.XRange(w.t.Context(), logKey, fmt.Sprintf("(%d-0", after), "+").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	log := map[uint64]string{}
	for _, e := range entries {
		packed, _ := e.Values["e"].(string)
		for packed = packed[16:]; len(packed) > 0; { // after the write ids: operation, length of the key (2 bytes), key
			end := 3 + int(packed[1])<<8 + int(packed[2])
			op := "set "
			if packed[0] == byte(protocol.Delete) {
				op = "delete "
			}
			after++
			log[after] = op + packed[3:end]
			packed = packed[end:]
		}
		if !strings.HasPrefix(e.ID, fmt.Sprintf("%d-", after)) {
			w.t.Fatalf("the entry %s of the log ends at version %d", e.ID, after)
		}
	}
	return log
}
