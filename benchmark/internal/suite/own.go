package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

const (
	hotRank     = 123_456 // rank, modulo the number of posts, of the post that is read when the ids are not drawn
	otherPosts  = 1000    // maximum number of posts of the second stack, which is updated for comparison and serves the proxies
	laneUpdates = 500     // updates per second during the reads of a lane
)

// ownStack is a Redis with a writer and posts of 259 bytes that only the benchmark uses. The first part that needs
// it starts it.
type ownStack struct {
	lab      *lab.Lab
	upstream *lab.Upstream
	err      error   // reason why there is none
	imported float64 // posts per second
}

// ownUpstream returns the benchmark's own Redis with all posts. Without a redis-server ok is false, and the report
// has a note.
func (s *suite) ownUpstream(ctx context.Context) (u *lab.Upstream, ok bool, err error) {
	o := &s.own
	if o.upstream == nil && o.err == nil {
		s.progress.Step(fmt.Sprintf("importing %d posts of 259 bytes", s.posts), time.Duration(s.posts)*10*time.Microsecond)
		u, err := o.lab.Upstream(ctx, "")
		if errors.Is(err, lab.ErrNoRedis) {
			o.err = err
			s.note("A reader with a core of its own and posts of 259 bytes was not measured: %v.", err)
			return nil, false, nil
		} else if err != nil {
			return nil, false, err
		}
		began := time.Now()
		if err := importPosts(ctx, u.Writer.Addr, "", s.posts, ownPost); err != nil {
			return nil, false, err
		}
		o.upstream, o.imported = u, float64(s.posts)/time.Since(began).Seconds()
	}
	return o.upstream, o.err == nil, nil
}

func ownPost(rank int) post.Post { return workload.Post(rank, 0) }

// checkOwn is a load.CheckFunc for posts of 259 bytes that may have been updated.
func checkOwn(rank, status int, body []byte) error {
	if status != http.StatusOK {
		return load.WrongStatus(workload.ID(rank), status, body)
	}
	if err := post.Verify(body); err != nil {
		return load.Wrong("%s: %v", workload.ID(rank), err)
	}
	if !strings.HasPrefix(string(body), fmt.Sprintf(`{"id":%q,`, workload.ID(rank))) {
		return load.Wrong("%s was read, but another post was returned: %.200q", workload.ID(rank), body)
	}
	return nil
}

// ownWrk returns a wrk that requests the own posts of the given ranks.
func (s *suite) ownWrk(ranks ...int) (*load.Wrk, error) {
	keys := make([]load.Key, len(ranks))
	for i, rank := range ranks {
		keys[i] = load.Key{Rank: rank, ID: workload.ID(rank)}
	}
	return load.NewWrk(keys, keys, checkOwn, &s.counts)
}

// ownCore measures one reader and its peers, each on a core of its own if the machine has at least two.
func (s *suite) ownCore(ctx context.Context) (err error) {
	u, ok, err := s.ownUpstream(ctx)
	if !ok || err != nil {
		return err
	}
	cores, pinned := s.own.lab.SeparateCores()
	own := &report.OwnCore{Pinned: pinned, Server: cores.Server, Clients: cores.Clients, Posts: s.posts, Round: s.ownRound, Versions: map[string]string{}}
	if pinned {
		// Redis, the writer and everything that sends requests leave one core to the server.
		for _, p := range []*lab.Process{u.Redis, u.Writer} {
			if err := p.Pin(ctx, cores.Clients); err != nil {
				return err
			}
			defer s.restore(ctx, &err, "move the benchmark's own Redis back to all cores", func(ctx context.Context) error { return p.Pin(ctx, "") })
		}
		if err := s.own.lab.Pin(ctx, cores.Clients); err != nil {
			return err
		}
		defer s.restore(ctx, &err, "move the benchmark back to all cores", func(ctx context.Context) error { return s.own.lab.Pin(ctx, "") })
	} else {
		s.note("The reader did not have a core of its own: that needs two cores and taskset.")
	}
	if err := s.measureOwn(ctx, u, cores, own); err != nil {
		return err
	}
	s.report.Own = own
	return nil
}

// measureOwn measures the lanes while everything except the measured server is on the clients' cores.
func (s *suite) measureOwn(ctx context.Context, u *lab.Upstream, cores lab.Cores, own *report.OwnCore) error {
	var running []*lab.Process
	stop := func() {
		for _, p := range slices.Backward(running) {
			p.Stop()
		}
		running = nil
	}
	defer stop()
	keep := func(p *lab.Process, err error) (*lab.Process, error) {
		if p != nil {
			running = append(running, p)
		}
		return p, err
	}

	s.progress.Step("starting the reader and its peers", 3*time.Second)
	reader, err := keep(s.own.lab.Reader(ctx, u, cores.Server, false))
	if err != nil {
		return err
	}
	// A second stack, which the measured reader does not follow. Its updates take the same CPU time from the
	// load generator, and none from the measured reader. Its reader is behind the proxies.
	other, err := s.own.lab.Upstream(ctx, cores.Clients)
	if other != nil {
		running = append(running, other.Redis, other.Writer)
	}
	if err != nil {
		return err
	}
	few := min(s.posts, otherPosts)
	if err := importPosts(ctx, other.Writer.Addr, "", few, ownPost); err != nil {
		return err
	}
	upstream, err := keep(s.own.lab.Reader(ctx, other, cores.Clients, false))
	if err != nil {
		return err
	}
	hot, err := s.ownWrk(slices.Repeat([]int{hotRank % s.posts}, 16*depth)...)
	if err != nil {
		return err
	}
	defer hot.Close()
	proxied, err := s.ownWrk(slices.Repeat([]int{hotRank % few}, 16)...)
	if err != nil {
		return err
	}
	defer proxied.Close()
	drawn, err := s.ownWrk((&load.Reads{Posts: s.posts}).Draw(1, load.ListLength)...)
	if err != nil {
		return err
	}
	defer drawn.Close()

	lanes, err := s.ownLanes(ctx, cores, reader, own, keep)
	if err != nil {
		return err
	}
	zipf := func(depth int) lane {
		l := s.ownLane(report.LaneZipf, reader, depth)
		l.wrk = drawn
		return l
	}
	updated := func(name string, writer *lab.Process, posts int) lane {
		l := s.ownLane(name, reader, 1)
		l.meanwhile = func(ctx context.Context, d time.Duration) error {
			_, err := lab.Updates{Writer: writer.Addr, Posts: posts, Rate: laneUpdates, Duration: d}.Run(ctx)
			return err
		}
		return l
	}
	lanes = append(lanes, zipf(1), zipf(depth),
		updated(report.LaneUpdated, u.Writer, s.posts), updated(report.LaneElsewhere, other.Writer, few))
	if own.Lanes, err = s.lanes(ctx, hot, lanes); err != nil {
		return err
	}
	proxies, err := s.proxyLanes(ctx, cores, upstream, own, keep)
	if err != nil {
		return err
	}
	if own.Proxies, err = s.lanes(ctx, proxied, proxies); err != nil {
		return err
	}
	stop()

	// The same reader on all cores, which it shares with the load generator.
	if err := s.own.lab.Pin(ctx, ""); err != nil {
		return err
	}
	if reader, err = keep(s.own.lab.Reader(ctx, u, "", false)); err != nil {
		return err
	}
	own.Shared, err = s.lanes(ctx, hot, []lane{s.ownLane(report.LaneFast, reader, 1), s.ownLane(report.LaneFast, reader, depth)})
	return err
}

// ownLane returns a lane in which a process of the lab serves a closed loop.
func (s *suite) ownLane(name string, p *lab.Process, depth int) lane {
	closed := s.closed(p.Addr, "/post", depth)
	closed.Duration, closed.Threads = s.ownRound, 1
	closed.Pause = 10 * time.Millisecond // leaves the load generator's core to wrk
	return lane{name: name, via: report.ViaDirect, closed: closed, cpu: processCPU(p)}
}

// keeper stops a process at the end of the measurement.
type keeper func(*lab.Process, error) (*lab.Process, error)

// ownLanes returns the lanes of the reader, and those of the peers, which return the same bytes as the reader.
func (s *suite) ownLanes(ctx context.Context, cores lab.Cores, reader *lab.Process, own *report.OwnCore, keep keeper) ([]lane, error) {
	a, err := s.request(ctx, reader.Addr, func(c *wire.Conn) (wire.Answer, error) {
		return c.Get("/post?id="+workload.ID(hotRank%s.posts), "")
	})
	if err != nil {
		return nil, err
	}
	own.Bytes = len(a.Body)
	std := func(depth int) lane {
		l := s.ownLane(report.LaneStd, reader, depth)
		l.closed.Header = stdHeader
		return l
	}
	lanes := []lane{
		s.ownLane(report.LaneFast, reader, 1), s.ownLane(report.LaneFast, reader, depth), std(1), std(depth),
	}
	for _, peer := range []struct {
		name  string
		start func(context.Context, lab.Answer, string) (*lab.Process, error)
	}{{report.LaneNginx, s.own.lab.Nginx}, {report.LaneNetHTTP, s.own.lab.NetHTTP}} {
		p, err := keep(peer.start(ctx, answerOf(a), cores.Server))
		if errors.Is(err, lab.ErrNoPeer) {
			s.note("%s was not measured: %v.", peer.name, err)
			continue
		} else if err != nil {
			return nil, err
		}
		if p.Version != "" {
			own.Versions[peer.name] = p.Version
		}
		for _, depth := range []int{1, depth} {
			l := s.ownLane(peer.name, p, depth)
			l.closed.Check = fixed{p, string(a.Body)}.check
			lanes = append(lanes, l)
		}
	}
	return lanes, nil
}

// proxyLanes returns the lanes of the gateway that stands in for APISIX and of its peers, in front of the same
// reader.
func (s *suite) proxyLanes(ctx context.Context, cores lab.Cores, upstream *lab.Process, own *report.OwnCore, keep keeper) ([]lane, error) {
	var lanes []lane
	for _, proxy := range []struct {
		name  string
		start func(ctx context.Context, reader, cores string) (*lab.Process, error)
	}{{report.ProxyGateway, s.own.lab.Gateway}, {report.ProxyNginx, s.own.lab.NginxProxy}, {report.ProxyHAProxy, s.own.lab.HAProxy}} {
		p, err := keep(proxy.start(ctx, upstream.Addr, cores.Server))
		if errors.Is(err, lab.ErrNoPeer) {
			s.note("%s was not measured: %v.", proxy.name, err)
			continue
		} else if err != nil {
			return nil, err
		}
		if p.Version != "" {
			own.Versions[proxy.name] = p.Version
		}
		l := s.ownLane(proxy.name, p, 1)
		l.via = report.ViaGateway
		lanes = append(lanes, l)
	}
	return lanes, nil
}
