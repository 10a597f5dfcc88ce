package e2e

import (
	"bufio"
	"bytes"
	"errors"
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
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// The writer is killed during a request. Readers converge to the writes that Redis executed, acknowledged or
// not.
func TestWriterIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: 2, content: func(v string) []byte { return postContent(v) }})
	for _, killed := range []struct {
		name   string
		action faultnet.Action
		done   uint64 // number of writes that Redis executed
	}{
		{"after Redis executed the write", faultnet.SwallowReply, 1},
		{"before Redis received the write", faultnet.Swallow, 0},
	} {
		p := startProcess(t, "writer", "REDIS_ADDR="+w.uplink.Addr())
		if _, err := w.createBy(p.addr, "a"); err != nil {
			t.Fatal(err)
		}
		before := w.mustHead()
		hook := w.uplink.OnceContains(toServer, writeOfA, killed.action)
		answered := make(chan error)
		go func() {
			_, err := w.createBy(p.addr, "a")
			answered <- err
		}()
		select {
		case <-hook.Fired():
		case <-time.After(patience):
			t.Fatal("the writer sent no request to Redis")
		}
		eventually.Nil(t, func() error {
			if h := w.mustHead(); h.Version != before.Version+killed.done {
				return fmt.Errorf("Redis is at %+v, want %d writes after %+v", h, killed.done, before)
			}
			return nil
		})
		p.kill()
		if err := <-answered; err == nil {
			t.Fatal("a killed writer has answered")
		}
		w.uplink.Heal()
		w.settled()
		if after := w.mustHead(); after.Version != before.Version+killed.done {
			t.Errorf("killed %s: Redis is at %+v, want %d writes after %+v", killed.name, after, killed.done, before)
		}
	}

	// Kill it at random moments.
	var addr atomic.Value
	p := startProcess(t, "writer", "REDIS_ADDR="+w.uplink.Addr())
	addr.Store(p.addr)
	stopped := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				case <-tick.C:
					_, _ = w.createBy(addr.Load().(string), fmt.Sprintf("post%d", (c+i)%7))
				}
			}
		})
	}
	for range 2 {
		w.flow(100)
		p.kill()
		w.fail(4)
		p = startProcess(t, "writer", "REDIS_ADDR="+w.uplink.Addr())
		addr.Store(p.addr)
	}
	w.flow(100)
	close(stopped)
	clients.Wait()
	w.verify()
}

// P4: a reader becomes ready only when it has the whole data set.
func TestReaderIsRestarted(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t)
	w := newWorld(t, setup{server: server, replicas: -1})
	posts := map[string][]byte{}
	publish := func(from, to int) {
		for i := from; i < to; i += 100 {
			var batch []protocol.Write
			for k := i; k < i+100; k++ {
				p := post.Post{ID: fmt.Sprint("post", k), Title: "old", Content: strings.Repeat("x", 400)}
				e := p.Encode(time.Now())
				posts[p.ID] = e.Body
				batch = append(batch, protocol.Write{Op: protocol.Set, Key: p.ID, Value: e.Body, Tag: e.Sum})
			}
			w.mustWrite(batch...)
		}
	}
	publish(0, 3000)
	link := faultnet.NewProxy(t, server.Addr())
	for round := range 2 {
		link.Throttle(toClient, 3<<20)
		began := time.Now()
		p := startProcess(t, "reader", "REDIS_ADDR="+link.Addr(), "POD_ID=restarted")
		loading := 0
		eventually.Nil(t, func() error {
			res, err := get(p.addr, "/ready")
			if err != nil {
				return err
			}
			if res.status == http.StatusOK {
				return nil
			}
			if strings.Contains(string(res.body), `"loading"`) {
				loading++
			}
			return fmt.Errorf("/ready answers %d %s", res.status, res.body)
		})
		t.Logf("round %d: %d posts, ready after %v over a slow link", round, len(posts), time.Since(began).Round(time.Millisecond))
		if loading == 0 {
			t.Error("/ready never reported \"loading\"")
		}
		link.Refuse(true) // so that the reader can serve only from memory
		link.Cut()
		for id, want := range posts {
			res, err := get(p.addr, target(id))
			if err != nil || res.status != http.StatusOK || !bytes.Equal(res.body, want) {
				t.Fatalf("round %d: %s: %d %s (%v), want %s", round, id, res.status, res.body, err, want)
			}
		}
		if res, err := get(p.addr, target("unknown")); err != nil || res.status != http.StatusNotFound {
			t.Errorf("an unknown post: %d %s (%v), want 404 from memory", res.status, res.body, err)
		}
		if res, err := get(p.addr, "/ready"); err != nil || res.status != http.StatusOK {
			t.Errorf("/ready while Redis is unreachable: %d %s (%v)", res.status, res.body, err)
		}
		link.Heal()
		p.kill()
		publish(2500, 3300) // while the reader is down
	}
}

// No read through the gateway fails while the readers are killed one after the other, and Redis too.
func TestReadsContinueThroughTheGateway(t *testing.T) {
	w := newWorld(t, setup{replicas: -1})
	const posts = 50
	want := map[string][]byte{}
	for i := range posts {
		p := post.Post{ID: fmt.Sprint("post", i), Title: "title", Content: strings.Repeat("x", i)}
		e := p.Encode(time.Now())
		want[p.ID] = e.Body
		w.mustWrite(protocol.Write{Op: protocol.Set, Key: p.ID, Value: e.Body, Tag: e.Sum})
	}
	var readers []*process
	var addrs []string
	for i := range 3 {
		p := startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), fmt.Sprint("POD_ID=reader-", i+1))
		waitReady(t, p.addr)
		readers, addrs = append(readers, p), append(addrs, p.addr)
	}
	gatewayAddr := serveGateway(t, addrs...)

	var good, bad atomic.Int64
	stopped := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := c; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				id := fmt.Sprint("post", i%posts)
				res, err := get(gatewayAddr, target(id))
				if err == nil && res.status == http.StatusOK && bytes.Equal(res.body, want[id]) {
					good.Add(1)
				} else if bad.Add(1) < 5 {
					t.Errorf("%s: %d %.100s (%v)", id, res.status, res.body, err)
				}
			}
		})
	}
	defer clients.Wait()
	stop := sync.OnceFunc(func() { close(stopped) })
	defer stop()
	waitMore(w, "reads", &good, 300)
	readers[0].kill()
	waitMore(w, "reads with one reader down", &good, 300)
	readers[1].kill()
	waitMore(w, "reads with two readers down", &good, 300)
	w.redis.Kill()
	waitMore(w, "reads with Redis down", &good, 300)
	stop()
	clients.Wait()
	t.Logf("%d reads, %d failed", good.Load()+bad.Load(), bad.Load())
}

// After SIGTERM a reader first reports that it is not ready, then finishes the requests in flight and exits
// with 0.
func TestReaderStopsInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	big := post.Post{ID: "big", Title: "big", Content: strings.Repeat("\x01", post.MaxContent)} // 6 MiB of JSON
	e := big.Encode(time.Now())
	w.mustWrite(protocol.Write{Op: protocol.Set, Key: "big", Value: e.Body, Tag: e.Sum})
	p := startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), "POD_ID=stopped")
	waitReady(t, p.addr)

	conn := stuckRead(t, p.addr)

	p.terminate(t)
	signalled := time.Now()
	eventually.Nil(t, func() error {
		res, err := get(p.addr, "/ready")
		if err != nil {
			t.Fatalf("the reader stopped listening before it reported that it was not ready: %v", err)
		}
		if res.status != http.StatusServiceUnavailable || !strings.Contains(string(res.body), `"stopping"`) {
			return fmt.Errorf("/ready answers %d %s", res.status, res.body)
		}
		return nil
	})
	if res, err := get(p.addr, target("big")); err != nil || res.status != http.StatusOK || !bytes.Equal(res.body, e.Body) {
		t.Errorf("a read after SIGTERM: %d, %d bytes (%v)", res.status, len(res.body), err)
	}
	eventually.Nil(t, func() error {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return nil
		}
		_ = c.Close()
		return errors.New("it still listens")
	})
	closed := time.Since(signalled)
	conn.link.Heal() // the client continues to read
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the response in flight: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(body, e.Body) {
		t.Errorf("the response in flight has %d of %d bytes: %v", len(body), len(e.Body), err)
	}
	p.ended(t, signalled)
	t.Logf("stopped listening after %v", closed.Round(time.Millisecond))
}

// A client that does not read its response does not keep the reader from exiting.
func TestReaderStopsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1})
	big := post.Post{ID: "big", Title: "big", Content: strings.Repeat("\x01", post.MaxContent)}
	e := big.Encode(time.Now())
	w.mustWrite(protocol.Write{Op: protocol.Set, Key: "big", Value: e.Body, Tag: e.Sum})
	p := startProcess(t, "reader", "REDIS_ADDR="+w.redis.Addr(), "POD_ID=stopped")
	waitReady(t, p.addr)
	for range 3 {
		stuckRead(t, p.addr)
	}
	p.terminate(t)
	p.ended(t, time.Now())
}

// stuckConn is a connection to a reader over a link that stalls the response.
type stuckConn struct {
	net.Conn
	link *faultnet.Proxy
}

// stuckRead requests the big post, whose response exceeds all buffers on the way, so that it stays in flight
// until the link is healed.
func stuckRead(t testing.TB, addr string) *stuckConn {
	t.Helper()
	link := faultnet.NewProxy(t, addr)
	link.Stall(toClient, true)
	conn, err := net.Dial("tcp", link.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := io.WriteString(conn, "GET /post?id=big HTTP/1.1\r\nHost: reader\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	eventually.Nil(t, func() error {
		if passed := link.Bytes(toServer); passed < int64(n) {
			return fmt.Errorf("%d of %d bytes of the request were forwarded", passed, n)
		}
		return nil
	})
	return &stuckConn{conn, link}
}

// ended checks that a process exits with 0, and in time after the signal.
func (p *process) ended(t testing.TB, signalled time.Time) {
	t.Helper()
	select {
	case at := <-p.exited:
		took := at.Sub(signalled)
		t.Logf("ended after %v", took.Round(time.Millisecond))
		if took > 10*time.Second {
			t.Errorf("the process took %v to exit", took)
		}
	case <-time.After(patience):
		t.Fatal("the process does not exit")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the process exited with %v, want 0", p.cmd.ProcessState)
	}
}
