package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// latestReads is the name under which the history has all reads with X-Min-Version: latest, of whichever reader: together
// they behave like one reader that has every write once it is acknowledged.
const latestReads = "latest"

// Reads with X-Min-Version: latest and writes are linearizable, on readers whose messages arrive late, while readers are
// killed and Redis is frozen.
func TestLatestReadsAreLinearizable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	links := []*faultnet.Proxy{}
	for i := range 3 {
		link := faultnet.NewProxy(t, w.redis.Addr())
		subscribes := faultnet.Contains("subscribe")
		link.Only(subscribes).Delay(toClient, time.Duration(i)*30*time.Millisecond)
		link.Only(faultnet.Not(subscribes)).Delay(toClient, 4*time.Millisecond) // a head is old when it arrives
		links = append(links, link)
	}
	start := func(i int) *process {
		return startProcess(t, "reader", "REDIS_ADDR="+links[i].Addr(), fmt.Sprint("POD_ID=reader-", i))
	}
	var readers []*process
	var addrs [3]atomic.Value
	for i := range links {
		p := start(i)
		waitReady(t, p.addr)
		readers = append(readers, p)
		addrs[i].Store(p.addr)
	}

	var answered, unavailable atomic.Int64
	read := func(addr, id string) {
		record := w.history.Read(latestReads, id)
		began := time.Now()
		res, err := get(addr, target(id), "X-Min-Version", "latest")
		took := time.Since(began)
		switch {
		case err != nil: // killed
			record.Unavailable()
		case res.status == http.StatusServiceUnavailable:
			record.Unavailable()
			unavailable.Add(1)
			if took > 2*time.Second { // 500 ms, with a margin for a busy machine
				t.Errorf("a read was refused after %v", took)
			}
		case res.status == http.StatusNotFound:
			record.Absent()
			answered.Add(1)
		case res.status == http.StatusOK:
			at, err := res.version()
			if err != nil {
				t.Error(err)
				return
			}
			record.Value(at.Epoch, at.Version, res.body)
			w.history.ReaderReached(latestReads, at.Epoch, at.Version)
			answered.Add(1)
		default:
			t.Errorf("%d %s", res.status, res.body)
		}
	}
	write := func(rng *rand.Rand, id string) {
		wr := w.remove(id)
		if rng.IntN(4) > 0 {
			e := post.Post{ID: id, Title: "title", Content: string(w.value(id, 0))}.Encode(time.Now())
			wr = protocol.Write{Op: protocol.Set, Key: id, Value: e.Body, Tag: e.Sum}
		}
		if results, err := w.write(wr); err == nil && results[0].Outcome.Changed() {
			w.history.ReaderReached(latestReads, results[0].Token.Epoch, results[0].Token.Version)
		}
	}
	stopped := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 6 {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			for {
				select {
				case <-stopped:
					return
				default:
				}
				id := fmt.Sprint("post", rng.IntN(6))
				if c < 2 {
					write(rng, id)
				}
				read(addrs[rng.IntN(len(addrs))].Load().(string), id)
			}
		})
	}
	stop := sync.OnceFunc(func() {
		close(stopped)
		clients.Wait()
	})
	defer stop()
	progress := func() {
		t.Helper()
		waitMore(w, "reads of the latest version", &answered, 200)
	}
	progress()
	for killed := range readers {
		readers[killed].kill()
		progress()
		readers[killed] = start(killed)
		waitReady(t, readers[killed].addr)
		addrs[killed].Store(readers[killed].addr)
		progress()
		w.redis.Pause()
		waitMore(w, "refused reads", &unavailable, 6)
		w.redis.Resume()
		progress()
	}
	for _, p := range readers {
		eventually.Nil(t, func() error {
			res, err := get(p.addr, target("post1"), "X-Min-Version", "latest")
			if err != nil || res.status == http.StatusServiceUnavailable {
				return fmt.Errorf("%d %s %v", res.status, res.body, err)
			}
			return nil
		})
	}
	stop()
	t.Logf("%d reads were answered, %d refused; %d writes were acknowledged, %d failed", answered.Load(), unavailable.Load(), w.acked.Load(), w.failed.Load())
	w.history.Verify(t, w.final())
}

// A reader whose source is a Redis replica answers latest, a version and the cookie of a write on every path no older than the
// write, although the Redis replica is behind: it asks the primary, with the rights that users.acl gives it. While it does not
// reach the primary it refuses such reads, and answers others.
func TestLatestOnARedisReplica(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	options := []redistest.Option{redistest.Password(password("admin")), redistest.Config("aclfile " + accessList(t)), redistest.Config("repl-ping-replica-period 1")}
	primary := redistest.Start(t, options...)
	link := faultnet.NewProxy(t, primary.Addr())
	source := redistest.Start(t, append(options, redistest.ReplicaOf(link))...)
	source.WaitReplicaOnline()
	loadStepScript(t, source) // as redis/health.sh does
	as := func(role, user string, server *redistest.Server, env ...string) string {
		p := startProcess(t, role, append(env, "REDIS_ADDR="+server.Addr(), "REDIS_USERNAME="+user, "REDIS_PASSWORD="+password(user))...)
		waitReady(t, p.addr)
		return p.addr
	}
	writer := as("writer", "writer", primary, "CONSISTENCY_COOKIE=true")
	reader := as("reader", "reader", source, "REDIS_READ_FROM=replica", "POD_ID=relay")
	paths := []string{"/post?id=%s", "/post-redis?id=%s", "/post-marshal?id=%s", "/posts?id=%s", "/posts?limit=1000&x=%s"}
	write := func(id, content string) response {
		res, err := create(writer, newPost{ID: id, Title: "title", Content: content})
		if err != nil || res.status >= 300 {
			t.Errorf("%d %s %v", res.status, res.body, err)
		}
		return res
	}

	// answers reads until the reader does not refuse: on a busy machine it may not have the write in time.
	answers := func(path, content string, header ...string) {
		t.Helper()
		eventually.Nil(t, func() error {
			res, err := get(reader, path, header...)
			if err != nil || res.status == http.StatusServiceUnavailable {
				return fmt.Errorf("%s with %s: %d %s %v", path, header, res.status, res.body, err)
			}
			if res.status != http.StatusOK || !strings.Contains(string(res.body), content) {
				t.Errorf("%s with %s: %d %s, want %q", path, header, res.status, res.body, content)
			}
			return nil
		})
	}
	write("first", "of the history, so the reader takes a snapshot")
	answers("/post?id=first", "of the history", "X-Min-Version", "latest")

	replication := link.Only(faultnet.Contains("PSYNC"))
	replication.Delay(toClient, 50*time.Millisecond)
	stale := atomic.Int64{} // reads without a requirement that were older than the write
	var clients sync.WaitGroup
	for c := range 3 {
		clients.Go(func() {
			id := fmt.Sprint("post", c)
			for i := range 25 {
				path := fmt.Sprintf(paths[i%len(paths)], id)
				content := fmt.Sprintf("write %d.", i)
				written := write(id, content)
				if res, err := get(reader, path); err == nil && !strings.Contains(string(res.body), content) {
					stale.Add(1)
				}
				cookie, _, _ := strings.Cut(written.header.Get("Set-Cookie"), ";")
				header := [][]string{{"X-Min-Version", "latest"}, {"X-Min-Version", written.header.Get("X-Version")}, {"Cookie", cookie}}[i%3]
				answers(path, content, header...)
			}
		})
	}
	clients.Wait()
	if stale.Load() == 0 {
		t.Error("no read was ever behind, so nothing was tested")
	}

	// /post-redis has the answer of the primary although the Redis replica does not receive the write.
	replication.Stall(toClient, true)
	write("post0", "stalled")
	for _, path := range paths {
		path = fmt.Sprintf(path, "post0")
		if strings.HasPrefix(path, "/post-redis") {
			answers(path, "stalled", "X-Min-Version", "latest")
		} else if res, err := get(reader, path, "X-Min-Version", "latest"); err != nil || res.status != http.StatusServiceUnavailable {
			t.Errorf("%s while the replication stalls: %d %s %v, want 503", path, res.status, res.body, err)
		}
	}
	link.Refuse(true)
	link.Cut()
	for _, path := range paths {
		path = fmt.Sprintf(path, "post0")
		if res, err := get(reader, path, "X-Min-Version", "latest"); err != nil || res.status != http.StatusServiceUnavailable || !strings.Contains(string(res.body), `"X-Min-Version"`) {
			t.Errorf("%s without the primary: %d %s %v", path, res.status, res.body, err)
		}
		answers(path, "title")
	}
	link.Refuse(false)
	link.Heal()
	for _, path := range paths {
		answers(fmt.Sprintf(path, "post0"), "stalled", "X-Min-Version", "latest")
	}
}

// loadStepScript loads the script of the readers.
func loadStepScript(t *testing.T, on *redistest.Server) {
	t.Helper()
	script := ""
	for _, name := range []string{"read.lua", "step.lua"} {
		text, err := os.ReadFile("../../cache/protocol/lua/" + name)
		if err != nil {
			t.Fatal(err)
		}
		script += string(text)
	}
	if err := on.Client(t).ScriptLoad(t.Context(), script).Err(); err != nil {
		t.Fatal(err)
	}
}

// A browser that gets the cookie of its write and follows the gateway's choice of readers reads its own write, although the
// readers' messages arrive late. Cookies of other programs change nothing.
func TestCookieReadsYourWrites(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t)
	writer := startProcess(t, "writer", "REDIS_ADDR="+server.Addr(), "CONSISTENCY_COOKIE=true")
	var readers []string
	for i := range 3 {
		link := faultnet.NewProxy(t, server.Addr())
		link.Only(faultnet.Contains("subscribe")).Delay(toClient, time.Duration(1+i)*40*time.Millisecond)
		readers = append(readers, serveReader(t, link.Addr(), fmt.Sprint("reader-", i+1)))
	}
	gateway := serveGateway(t, readers...)
	waitReady(t, writer.addr)
	for i := range 30 {
		content := fmt.Sprint("write ", i)
		written, err := create(writer.addr, newPost{ID: "post", Title: "title", Content: content})
		if err != nil || written.status >= 300 {
			t.Fatalf("%d %s %v", written.status, written.body, err)
		}
		cookie, _, _ := strings.Cut(written.header.Get("Set-Cookie"), ";")
		for _, target := range []string{"/post?id=post", "/posts?id=post&id=other"} {
			res, err := get(gateway, target, "Cookie", "session=a b; "+cookie+"; other=posts_version=1")
			if err != nil || res.status != http.StatusOK {
				t.Fatalf("%s: %d %s %v", target, res.status, res.body, err)
			}
			if !strings.Contains(string(res.body), `"`+content+`"`) {
				t.Errorf("%s after write %d with cookie %q: %s", target, i, cookie, res.body)
			}
		}
	}
}

// After a rollback, a client that follows gets 410, and the way out leads to the state of Redis, also on a reader that has
// not noticed the rollback yet.
func TestFollowThenReadAfterARollback(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t)
	writer := serveWriter(t, server.Addr())
	link := faultnet.NewProxy(t, server.Addr())
	first, late := serveReader(t, server.Addr(), "first"), serveReader(t, link.Addr(), "late")
	put := func(id, content string) response {
		t.Helper()
		res, err := create(writer, newPost{ID: id, Title: "title", Content: content})
		if err != nil || res.status >= 300 {
			t.Fatalf("%d %s %v", res.status, res.body, err)
		}
		return res
	}
	read := func(addr string, header ...string) string {
		t.Helper()
		res, err := get(addr, "/posts?id=a&id=b&id=c", header...)
		if err != nil || res.status != http.StatusOK {
			t.Fatalf("%d %s %v", res.status, res.body, err)
		}
		return string(res.body)
	}
	poll := func(addr, query string) (next string, status int) {
		t.Helper()
		res, err := get(addr, "/changes?"+query)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(res.body)), "\n")
		var last struct{ Next string }
		_ = json.Unmarshal([]byte(lines[len(lines)-1]), &last)
		return last.Next, res.status
	}
	put("a", "kept")
	c, ctx := server.Client(t), t.Context()
	backup := map[string]string{}
	for _, key := range []string{logKey, seqKey, valuePrefix + "a"} {
		backup[key] = c.Dump(ctx, key).Val()
	}
	put("b", "lost")
	put("a", "lost")
	written := put("c", "lost")
	for _, addr := range []string{first, late} {
		if got := read(addr, "X-Min-Version", written.header.Get("X-Version")); strings.Count(got, `"lost"`) != 3 {
			t.Fatal(got)
		}
	}
	before, _ := poll(first, "wait=0")

	link.Only(faultnet.Contains("subscribe")).BlackHole(toClient, true)
	for key, value := range backup {
		if err := c.RestoreReplace(ctx, key, 0, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Del(ctx, valuePrefix+"b", valuePrefix+"c").Err(); err != nil {
		t.Fatal(err)
	}
	written = put("b", "new")
	put("c", "new")
	put("b", "newer")
	// The version that was lost has been assigned again; the position before it shows that.
	for _, addr := range []string{first, late} {
		eventually.Nil(t, func() error { // 200 without events while a reader has not noticed the rollback
			if _, status := poll(addr, "wait=0&since="+before); status != http.StatusGone {
				return fmt.Errorf("%d", status)
			}
			return nil
		})
		if addr == first {
			at, status := poll(first, "wait=0")
			if status != http.StatusOK {
				t.Fatal(status)
			}
			for _, reader := range []string{late, first} {
				got := read(reader, "X-Min-Version", at)
				if !strings.Contains(got, `"newer"`) || !strings.Contains(got, `"kept"`) || strings.Contains(got, `"lost"`) {
					t.Errorf("after following from %s: %s", at, got)
				}
			}
		}
	}
}
