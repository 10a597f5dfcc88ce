package reader

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

// page is a decoded page.
type page struct {
	Posts []json.RawMessage
	After *string
	Since string
}

// query returns the query of the page after p, or of the first page if p is nil.
func (p *page) query(limit int) string {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", fmt.Sprint(limit))
	}
	if p != nil {
		q.Set("after", *p.After)
		q.Set("since", p.Since)
	}
	return "/posts?" + q.Encode()
}

// next reads the page after p, and repeats a request that is answered with 503.
func (r *instance) next(t *testing.T, p *page, limit int) *page {
	t.Helper()
	for {
		res := r.do(t, "GET", p.query(limit))
		if res.status == http.StatusServiceUnavailable {
			continue
		}
		next := &page{}
		if err := json.Unmarshal(res.body, next); err != nil || res.status != http.StatusOK {
			t.Fatalf("%s: %d %s: %v", p.query(limit), res.status, res.body, err)
		}
		return next
	}
}

func idOfPost(t *testing.T, body []byte) string {
	t.Helper()
	var p struct{ ID string }
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatal(err)
	}
	return p.ID
}

// Pages have all posts in the order of their ids, byte for byte.
func TestPages(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		r := startReady(t, b.Addr())
		if res := r.do(t, "GET", "/posts?after="); res.status != 200 || string(res.body) != `{"posts":[],"after":null,"since":"0000000000000000-0.0000000000000000"}`+"\n" {
			t.Errorf("without posts: %d %s", res.status, res.body)
		}
		ids := []string{`q"<&é`, "a b", "a", "B", strings.Repeat("z", 256), "~"}
		for i := range 300 {
			ids = append(ids, fmt.Sprint("post-", i))
		}
		want := map[string]string{}
		var last written
		for _, id := range ids {
			last = publish(t, p, post.Post{ID: id, Title: "t"})
			want[id] = string(last.body)
		}
		slices.Sort(ids)
		r.do(t, "GET", "/posts", "X-Min-Version", last.token.String())
		for _, limit := range []int{0, 1, 7, 1000} {
			var at *page
			var got []string
			for at == nil || at.After != nil {
				at = r.next(t, at, limit)
				for _, body := range at.Posts {
					id := idOfPost(t, body)
					if got = append(got, id); string(body) != want[id] {
						t.Fatalf("%s is %s, want %s", id, body, want[id])
					}
				}
				if n := len(at.Posts); at.After != nil && (n != max(limit, 1) && limit > 0 || limit == 0 && n != defaultLimit) {
					t.Fatalf("a page with limit %d has %d posts", limit, n)
				}
			}
			if !slices.Equal(got, ids) {
				t.Fatalf("limit %d: %q, want %q", limit, got, ids)
			}
			if !strings.HasPrefix(at.Since, last.token.String()+".") || strings.Contains(at.Since, "~") {
				t.Errorf("since is %s, want the position of %s", at.Since, last.token)
			}
		}
		res := r.do(t, "GET", "/posts?after=a&limit=2&x=1")
		end := `],"after":"post-0","since":"`
		if !strings.HasPrefix(string(res.body), `{"posts":[`+want["a b"]+","+want["post-0"]+end) || res.header.Get("X-Version") != last.token.String() ||
			res.header.Get("Content-Type") != "application/json" || res.header.Get("Content-Length") != fmt.Sprint(len(res.body)) || res.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%v %s", res.header, res.body)
		}
		if head := r.do(t, "HEAD", "/posts?after=a&limit=2"); head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(len(res.body)) || len(head.body) > 0 {
			t.Errorf("HEAD: %d %v", head.status, head.header)
		}
		// Writes and deletes after the ids were sorted.
		publish(t, p, post.Post{ID: "a a", Title: "t"})
		last = publish(t, p, post.Post{ID: "a", Title: "2"})
		token := remove(t, p, "a b")
		r.do(t, "GET", "/posts", "X-Min-Version", token.String())
		if res := r.do(t, "GET", "/posts?after=B&limit=2"); !strings.HasPrefix(string(res.body), `{"posts":[`+string(last.body)+`,{"id":"a a",`) {
			t.Errorf("after the writes: %s", res.body)
		}
	})
}

// A page ends before it has more than pageBytes, and has a larger post alone.
func TestPagesAreBounded(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	r := startReady(t, b.Addr())
	var last written
	for i := range 8 {
		last = publish(t, p, post.Post{ID: fmt.Sprint("p", i), Title: "t", Content: strings.Repeat("x", 300<<10)})
	}
	last = publish(t, p, post.Post{ID: "q", Title: "t", Content: strings.Repeat("\x01", 1<<20)})
	r.do(t, "GET", "/posts", "X-Min-Version", last.token.String())
	var at *page
	sizes := []int{}
	for at == nil || at.After != nil {
		at = r.next(t, at, 1000)
		sizes = append(sizes, len(at.Posts))
	}
	if !slices.Equal(sizes, []int{3, 3, 2, 1}) {
		t.Errorf("pages of %v posts", sizes)
	}
}

func TestPageRefusals(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	w := publish(t, p, post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	for target, field := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=1&limit=1": "limit",
		"after=%00": "after", "after=a&after=a": "after", "after=" + strings.Repeat("x", 257): "after",
		"since=": "since", "since=x": "since", "since=" + w.token.String() + "&since=" + w.token.String(): "since",
		"after=%zz": "id",
	} {
		wantProblem(t, r.do(t, "GET", "/posts?"+target), http.StatusBadRequest, field)
	}
	wantProblem(t, r.do(t, "GET", "/posts", "X-Min-Version", "x"), http.StatusBadRequest, "X-Min-Version")
	later := protocol.Token{Epoch: w.token.Epoch, Version: w.token.Version + 1}.String()
	wantProblem(t, r.do(t, "GET", "/posts", "X-Min-Version", later), http.StatusServiceUnavailable, "X-Min-Version")
	wantProblem(t, r.do(t, "GET", "/posts?since="+later), http.StatusServiceUnavailable, "since")
	wantProblem(t, r.do(t, "GET", "/posts?since="+w.token.String(), "X-Min-Version", later), http.StatusServiceUnavailable, "X-Min-Version")
	wantProblem(t, r.do(t, "GET", "/posts?since="+later, "X-Min-Version", w.token.String()), http.StatusServiceUnavailable, "since")
	for _, since := range []string{
		protocol.Token{Epoch: w.token.Epoch ^ 1, Version: 1}.String(),
		protocol.Position{Head: protocol.Head{Epoch: w.token.Epoch, Version: w.token.Version, WriteID: 1}}.String(),
	} {
		wantProblem(t, r.do(t, "GET", "/posts?since="+since), http.StatusGone, "since")
	}
}

// A reader whose memory does not hold all posts says so.
func TestPagesNeedAllPosts(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	for i := range 200 {
		publish(t, p, post.Post{ID: fmt.Sprint(i), Title: "t", Content: strings.Repeat("x", 1000)})
	}
	r := startReady(t, b.Addr(), func(c *Config) { c.Local.MaxSize = 64 << 10 })
	res := r.do(t, "GET", "/posts")
	wantProblem(t, res, http.StatusConflict, "")
	if !strings.Contains(string(res.body), "CACHE_MAX_SIZE") || res.header.Get("Retry-After") != "" {
		t.Errorf("%v %s", res.header, res.body)
	}
	never := start(t, "127.0.0.1:1")
	res = never.do(t, "GET", "/posts")
	wantProblem(t, res, http.StatusServiceUnavailable, "")
	if res.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// A client reads the pages from one reader after the other while posts are written and deleted, then follows the changes
// from the position in the last page, and holds exactly what Redis holds.
func TestPagesThenChanges(t *testing.T) {
	redistest.Require(t)
	b := redistest.Start(t)
	p := newPublisher(t, b.Addr())
	round := func(n, of int, title string, rng *rand.Rand) {
		var commit []protocol.Write
		for range n {
			e := (&post.Post{ID: fmt.Sprint(rng.IntN(of)), Title: title}).Encode(time.Now())
			commit = append(commit, protocol.Write{Op: protocol.Set, Key: idOfPost(t, e.Body), Value: e.Body, Tag: e.Sum})
		}
		for _, writes := range [][]protocol.Write{commit, {{Op: protocol.Delete, Key: fmt.Sprint(rng.IntN(of))}}} {
			if _, err := p.Write(t.Context(), writes...); err != nil {
				t.Error(err)
			}
		}
	}
	round(500, 1000, "first", rand.New(rand.NewPCG(1, 2)))
	readers := []*instance{startReady(t, b.Addr()), startReady(t, b.Addr()), startReady(t, b.Addr(), func(c *Config) { c.ChangesWindow = 1 << 16 })}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	var rounds atomic.Int64
	writing.Go(func() {
		rng := rand.New(rand.NewPCG(3, 4))
		for t.Context().Err() == nil {
			select {
			case <-stop:
				return
			default:
			}
			round(1+rng.IntN(5), 1500, fmt.Sprint("round ", rounds.Load()), rng)
			rounds.Add(1)
		}
	})
	type client struct {
		state map[string]string
		since string
	}
	var clients []client
	rng := rand.New(rand.NewPCG(5, 6))
	for len(clients) < 20 || rounds.Load() < 200 {
		c := client{state: map[string]string{}}
		var at *page
		for at == nil || at.After != nil {
			at = readers[rng.IntN(len(readers))].next(t, at, 1+rng.IntN(100))
			for _, body := range at.Posts {
				c.state[idOfPost(t, body)] = string(body)
			}
		}
		c.since = at.Since
		clients = append(clients, c)
	}
	close(stop)
	writing.Wait()
	want := contents(t, b)
	end := publish(t, p, post.Post{ID: "end", Title: "t"})
	want["end"] = string(end.body)
	for i, c := range clients {
		for {
			res := readers[i%len(readers)].do(t, "GET", "/changes?wait=5&since="+url.QueryEscape(c.since))
			if res.status != http.StatusOK {
				t.Fatalf("%d %s", res.status, res.body)
			}
			for line := range strings.Lines(string(res.body)) {
				var e struct {
					Event, Next string
					Post        json.RawMessage
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				switch e.Event {
				case "set":
					c.state[idOfPost(t, e.Post)] = string(e.Post)
				case "delete":
					delete(c.state, idOfPost(t, e.Post))
				default:
					c.since = e.Next
				}
			}
			if c.state["end"] != "" {
				break
			}
		}
		if len(c.state) != len(want) {
			t.Errorf("client %d has %d posts, want %d", i, len(c.state), len(want))
		}
		for id, body := range want {
			if c.state[id] != body {
				t.Fatalf("client %d: %s is %s, want %s", i, id, c.state[id], body)
			}
		}
	}
	t.Log(len(clients), "clients,", rounds.Load(), "rounds")
}

// contents returns the posts in Redis.
func contents(t *testing.T, b redistest.Backend) map[string]string {
	t.Helper()
	posts := map[string]string{}
	c, keys := b.Client(t), protocol.NewKeys(protocol.DefaultNamespace)
	names, err := c.Keys(t.Context(), keys.Prefix+"*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		stored, err := c.Get(t.Context(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rec, err := protocol.DecodeStored(stored)
		if err != nil {
			t.Fatal(err)
		}
		posts[rec.Key] = rec.Value
	}
	return posts
}
