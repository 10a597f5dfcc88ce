package reader

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

func TestPosts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		a := publish(t, p, post.Post{ID: "a", Title: "1"})
		c := publish(t, p, post.Post{ID: "c &", Title: "<3>"})
		r := startReady(t, b.Addr())
		for target, want := range map[string]string{
			"id=a":                        `{"posts":[` + string(a.body) + `],"missing":[]}` + "\n",
			"id=c+%26&id=b%3C&id=a&x=%41": `{"posts":[` + string(c.body) + "," + string(a.body) + `],"missing":["b<"]}` + "\n",
			"id=x&id=y":                   `{"posts":[],"missing":["x","y"]}` + "\n",
		} {
			res := r.do(t, "GET", "/posts?"+target)
			if res.status != http.StatusOK || string(res.body) != want || res.header.Get("X-Version") != c.token.String() ||
				res.header.Get("Content-Type") != "application/json" || res.header.Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("%s: %d %v %s, want %s", target, res.status, res.header, res.body, want)
			}
			if head := r.do(t, "HEAD", "/posts?"+target); head.status != http.StatusOK || head.header.Get("Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("HEAD %s: %d %v", target, head.status, head.header)
			}
		}
		next := publish(t, p, post.Post{ID: "a", Title: "2"})
		res := r.do(t, "GET", "/posts?id=a", "X-Min-Version", next.token.String())
		if !strings.Contains(string(res.body), string(next.body)) || res.header.Get("X-Version") != next.token.String() {
			t.Errorf("X-Min-Version: %d %v %s", res.status, res.header, res.body)
		}
		many := strings.Repeat("id=a&", 100)
		if res := r.do(t, "GET", "/posts?"+many); res.status != http.StatusOK {
			t.Errorf("100 ids: %d %s", res.status, res.body)
		}
		for _, target := range []string{"id=", many + "id=a", "id=%zz", "id=a&id=" + strings.Repeat("x", 257)} {
			wantProblem(t, r.do(t, "GET", "/posts?"+target), http.StatusBadRequest, "id")
		}
		wantProblem(t, r.do(t, "GET", "/posts?id=a", "X-Min-Version", "x"), http.StatusBadRequest, "X-Min-Version")
	})
}

// An answer is the state at its version: each commit gives all posts one number, and the deletes that follow remove the
// first and then the last, so no state has only some of the numbers, or the first without the last.
func TestPostsAtOneVersion(t *testing.T) {
	for name, size := range map[string]int64{"all in memory": 0, "most in Redis": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			redistest.Require(t)
			b := redistest.Start(t)
			p := newPublisher(t, b.Addr())
			ids := make([]string, 70)
			for i := range ids {
				ids[i] = fmt.Sprint("k", i)
			}
			round := func(n int) {
				var commit []protocol.Write
				for _, id := range ids {
					e := (&post.Post{ID: id, Title: fmt.Sprint(n), Content: strings.Repeat("x", 2000)}).Encode(time.Now())
					commit = append(commit, protocol.Write{Op: protocol.Set, Key: id, Value: e.Body, Tag: e.Sum})
				}
				if _, err := p.Write(t.Context(), commit...); err != nil {
					t.Fatal(err)
				}
			}
			round(0)
			r := startReady(t, b.Addr(), func(c *Config) { c.Local.MaxSize = size })
			target := "/posts?" + url.Values{"id": ids}.Encode()
			done := make(chan struct{})
			var reading sync.WaitGroup
			answers := 0
			reading.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					res := r.do(t, "GET", target)
					if res.status == http.StatusServiceUnavailable {
						continue
					}
					var got struct {
						Posts   []struct{ ID, Title string }
						Missing []string
					}
					if err := json.Unmarshal(res.body, &got); err != nil || res.status != http.StatusOK {
						t.Errorf("%d %s: %v", res.status, res.body, err)
						return
					}
					answers++
					for _, post := range got.Posts {
						if post.Title != got.Posts[0].Title {
							t.Errorf("version %s has rounds %s and %s", res.header.Get("X-Version"), got.Posts[0].Title, post.Title)
							return
						}
					}
					if m := strings.Join(got.Missing, " "); m != "" && m != ids[0] && m != ids[0]+" "+ids[len(ids)-1] {
						t.Errorf("version %s lacks %s", res.header.Get("X-Version"), m)
						return
					}
				}
			})
			for n := 1; n < 120; n++ {
				remove(t, p, ids[0])
				remove(t, p, ids[len(ids)-1])
				round(n)
			}
			close(done)
			reading.Wait()
			if answers == 0 {
				t.Error("no answer")
			}
			t.Log(answers, "answers")
		})
	}
}
