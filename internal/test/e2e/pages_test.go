package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// pager is a client that copies all posts through the gateway, page by page, and then follows the changes.
type pager struct {
	t       *testing.T
	gateway string
	posts   map[string]string // by id
	since   string
}

// get repeats a request until a reader answers it.
func (p *pager) get(target string) (status int, body []byte) {
	p.t.Helper()
	eventually.Nil(p.t, func() error {
		res, err := get(p.gateway, target)
		if err != nil {
			return err
		}
		if status, body = res.status, res.body; status >= http.StatusInternalServerError {
			return fmt.Errorf("%s: %d %s", target, status, body)
		}
		return nil
	})
	return status, body
}

func (p *pager) set(post json.RawMessage) string {
	var text struct{ ID string }
	if err := json.Unmarshal(post, &text); err != nil {
		p.t.Error(err)
	}
	p.posts[text.ID] = string(post)
	return text.ID
}

// copyAll reads all pages and calls between after each.
func (p *pager) copyAll(limit int, between func()) {
	p.t.Helper()
	p.posts = map[string]string{}
	query := url.Values{"limit": {fmt.Sprint(limit)}}
	for {
		status, body := p.get("/posts?" + query.Encode())
		var page struct {
			Posts []json.RawMessage
			After *string
			Since string
		}
		if err := json.Unmarshal(body, &page); err != nil || status != http.StatusOK {
			p.t.Fatalf("a page: %d %s: %v", status, body, err)
		}
		for _, post := range page.Posts {
			p.set(post)
		}
		if p.since = page.Since; page.After == nil {
			return
		}
		query.Set("after", *page.After)
		query.Set("since", page.Since)
		between()
	}
}

// followTo applies the changes up to the write of a post.
func (p *pager) followTo(id string) {
	p.t.Helper()
	for done := false; !done; {
		status, body := p.get("/changes?wait=1&since=" + p.since)
		if status != http.StatusOK {
			p.t.Fatalf("changes: %d %s", status, body)
		}
		for line := range strings.Lines(string(body)) {
			var change struct {
				Event, Next string
				Post        json.RawMessage
			}
			if err := json.Unmarshal([]byte(line), &change); err != nil {
				p.t.Fatal(err)
			}
			switch change.Event {
			case "set":
				done = p.set(change.Post) == id || done
			case "delete":
				gone := p.set(change.Post)
				delete(p.posts, gone)
			default:
				p.since = change.Next
			}
		}
	}
}

// A client that copies all posts through the gateway, while posts are written and deleted and readers are killed between
// its pages, and then follows the changes holds exactly what Redis holds.
func TestPagesSurviveKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	start := func(i int, port string) *process {
		return startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), fmt.Sprint("POD_ID=reader-", i), "PORT="+port)
	}
	var readers []*process
	var addrs []string
	for i := range 3 {
		r := start(i, "0")
		waitReady(t, r.addr)
		readers, addrs = append(readers, r), append(addrs, r.addr)
	}
	writer, gateway := serveWriter(t, w.redis.Addr()), serveGateway(t, addrs...)
	send := func(method, target, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+writer+target, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		if strings.HasPrefix(target, "/import") {
			req.Header.Set("Content-Type", "application/x-ndjson")
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		if res.Body.Close(); res.StatusCode >= 300 && res.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %d", method, target, res.StatusCode)
		}
	}
	var first strings.Builder
	for i := range 300 {
		fmt.Fprintf(&first, `{"id":"post-%d","title":"first"}`+"\n", i)
	}
	send("POST", "/import", first.String())
	for _, addr := range addrs { // before its first write, a reader is in no history
		eventually.Nil(t, func() error {
			if res, err := get(addr, "/post?id=post-299"); err != nil || res.status != http.StatusOK {
				return fmt.Errorf("%d, %v", res.status, err)
			}
			return nil
		})
	}
	var writing sync.WaitGroup
	var writes atomic.Int64
	stop := make(chan struct{})
	writing.Go(func() {
		rng := rand.New(rand.NewPCG(7, 8))
		for {
			select {
			case <-stop:
				return
			default:
			}
			target := fmt.Sprint("/post?id=post-", rng.IntN(600))
			if rng.IntN(3) == 0 {
				send("DELETE", target, "")
			} else {
				send("PUT", target, fmt.Sprintf(`{"title":"%d"}`, writes.Load()))
			}
			writes.Add(1)
		}
	})
	var pagers []*pager
	for round := range 6 {
		p := &pager{t: t, gateway: gateway}
		pages := 0
		p.copyAll(20, func() {
			if pages++; pages != 3 {
				waitMore(w, "writes", &writes, 1)
				return
			}
			killed := round % len(readers)
			readers[killed].kill()
			_, port, err := net.SplitHostPort(readers[killed].addr)
			if err != nil {
				t.Fatal(err)
			}
			readers[killed] = start(killed, port)
		})
		pagers = append(pagers, p)
	}
	close(stop)
	writing.Wait()
	send("PUT", "/post?id=last", `{"title":"last"}`)
	for i, p := range pagers {
		p.followTo("last")
		stored := w.stored()
		for _, s := range stored {
			if p.posts[s.key] != s.value {
				t.Errorf("client %d has %q as %s, Redis has %q", i, p.posts[s.key], s.key, s.value)
			}
		}
		if len(p.posts) != len(stored) {
			t.Errorf("client %d has %d posts, Redis has %d", i, len(p.posts), len(stored))
		}
	}
	t.Logf("%d clients, %d writes", len(pagers), writes.Load())
}
