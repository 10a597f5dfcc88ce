package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
)

// readyBody is the part of the body of /ready that these tests check.
type readyBody struct {
	Status     string
	LagSeconds float64 `json:"lag_seconds"`
	File       *struct {
		AgeSeconds float64 `json:"age_seconds"`
	}
}

// P5: all readers serve every post when they are restarted while Redis is down, whether they were stopped or killed,
// also while they saved; and P1 when Redis is back.
func TestReadersRestartWithoutRedis(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	folder := t.TempDir()
	posts := map[string][]byte{}
	publish := func(ids ...int) {
		var batch []protocol.Write
		for _, i := range ids {
			p := post.Post{ID: fmt.Sprint("post", i), Title: "title", Content: strings.Repeat("x", 10_000) + fmt.Sprint(len(posts))}
			e := p.Encode(time.Now())
			posts[p.ID] = e.Body
			batch = append(batch, protocol.Write{Op: protocol.Set, Key: p.ID, Value: e.Body, Tag: e.Sum})
		}
		w.mustWrite(batch...)
	}
	for i := range 20 {
		var ids []int
		for k := range 100 {
			ids = append(ids, 100*i+k)
		}
		publish(ids...)
	}
	start := func(name string) *process {
		return startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), "POD_ID="+name, "CACHE_SNAPSHOT_DIR="+folder, "CACHE_SNAPSHOT_INTERVAL=1s")
	}
	// files returns the size of the file that is being written, and of the complete one; 0 if there is none.
	files := func() (temporary, complete int64) {
		for _, pattern := range []string{"*.tmp", "*.snapshot"} {
			found, _ := filepath.Glob(filepath.Join(folder, pattern))
			for _, path := range found {
				if info, err := os.Stat(path); err == nil && pattern == "*.tmp" {
					temporary = info.Size()
				} else if err == nil {
					complete = info.Size()
				}
			}
		}
		return temporary, complete
	}
	serves := func(p *process) {
		t.Helper()
		for id, want := range posts {
			if res, err := get(p.addr, target(id)); err != nil || res.status != http.StatusOK || !bytes.Equal(res.body, want) {
				t.Fatalf("%s: %d %.100s (%v)", id, res.status, res.body, err)
			}
		}
	}

	// Kill a reader while it writes the file, a few times; then stop one, which saves.
	for round := range 4 {
		p := start("killed")
		waitReady(t, p.addr)
		serves(p)
		eventually.Nil(t, func() error {
			publish(round) // otherwise the file is up to date after a save that no poll has met
			if temporary, complete := files(); temporary == 0 || round > 0 && complete == 0 {
				return fmt.Errorf("%d bytes are being written, the file has %d", temporary, complete)
			}
			return nil
		})
		p.kill()
		if round == 0 { // there must be a file from the second round on
			p = start("stopped")
			waitReady(t, p.addr)
			p.terminate(t)
			p.ended(t, time.Now())
		}
	}
	last := start("stopped")
	waitReady(t, last.addr)
	publish(7)
	eventually.Nil(t, func() error {
		res, err := get(last.addr, target("post7"))
		if err != nil || !bytes.Equal(res.body, posts["post7"]) {
			return fmt.Errorf("post7: %d (%v)", res.status, err)
		}
		return nil
	})
	last.terminate(t)
	last.ended(t, time.Now())
	w.redis.Stop()

	var readers []*process
	for i := range 3 {
		readers = append(readers, start(fmt.Sprint("reader-", i)))
	}
	for _, p := range readers {
		waitReady(t, p.addr)
		serves(p)
		var body readyBody
		res, err := get(p.addr, "/ready")
		if err == nil {
			err = json.Unmarshal(res.body, &body)
		}
		if err != nil || body.Status != "degraded" || body.LagSeconds <= 0 || body.File == nil || body.File.AgeSeconds <= 0 {
			t.Errorf("/ready: %d %s (%v)", res.status, res.body, err)
		}
		if res, err := get(p.addr, target("unknown")); err != nil || res.status != http.StatusServiceUnavailable {
			t.Errorf("an id that is not in the file: %d %s (%v), want 503", res.status, res.body, err)
		}
	}
	w.redis.Restart()
	w.publisher = w.newPublisher(w.uplink) // its old connections are closed
	publish(8, 2001)
	for _, p := range readers {
		eventually.Nil(t, func() error {
			res, err := get(p.addr, target("unknown"))
			now, errNow := get(p.addr, target("post2001"))
			if err != nil || errNow != nil || res.status != http.StatusNotFound || now.status != http.StatusOK {
				return fmt.Errorf("unknown: %d (%v), post2001: %d (%v)", res.status, err, now.status, errNow)
			}
			return nil
		})
		serves(p)
	}
}
