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
	hotRank      = 123_456 // rank, modulo the number of posts, of the post that is asked for where the ids are not drawn
	otherPosts   = 1000    // at most, posts of the stack that is updated for comparison and that the proxies ask
	besideWrites = 500     // updates a second beside reads
)

// ownStack is a Redis, a writer and posts of 259 bytes that belong to the benchmark. It is started for the
// first part that needs it.
type ownStack struct {
	lab      *lab.Lab
	upstream *lab.Upstream
	err      error // reason why there is none
	imported float64
}

// ownUpstream returns the benchmark's own Redis with all posts. ok is false where that is not possible, which
// is noted.
func (s *suite) ownUpstream(ctx context.Context) (u *lab.Upstream, ok bool, err error) {
	o := &s.own
	if o.upstream == nil && o.err == nil {
		s.progress.Step(fmt.Sprintf("importing %d posts of 259 bytes", s.posts), time.Duration(s.posts)*10*time.Microsecond)
		u, err := o.lab.Upstream(ctx, "")
		if errors.Is(err, lab.ErrNoRedis) {
			o.err = err
			s.note("One reader with a core of its own and posts of 259 bytes were not measured: %v.", err)
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
		return load.Wrong("%s was answered with another post: %.200q", workload.ID(rank), body)
	}
	return nil
}

// ownWrk returns a wrk for own posts, of which it asks for one or for many.
func (s *suite) ownWrk(ranks ...int) (*load.Wrk, error) {
	asked := make([]load.Asked, len(ranks))
	for i, rank := range ranks {
		asked[i] = load.Asked{Rank: rank, ID: workload.ID(rank)}
	}
	return load.NewWrk(asked, asked, checkOwn, &s.counts)
}

// ownCore measures one reader and its peers, each on a core of its own where there are two.
func (s *suite) ownCore(ctx context.Context) (err error) {
	u, ok, err := s.ownUpstream(ctx)
	if !ok || err != nil {
		return err
	}
	cores, apart := s.own.lab.Apart()
	own := &report.OwnCore{Apart: apart, Server: cores.Server, Clients: cores.Clients, Posts: s.posts, Round: s.ownRound, Versions: map[string]string{}}
	if apart {
		// Redis, the writer and everything that sends requests leave one core to the server.
		for _, p := range []*lab.Process{u.Redis, u.Writer} {
			if err := p.Pin(ctx, cores.Clients); err != nil {
				return err
			}
			defer s.undone(ctx, &err, "move the benchmark's own Redis back to all cores", func(ctx context.Context) error { return p.Pin(ctx, "") })
		}
		if err := s.own.lab.Pin(ctx, cores.Clients); err != nil {
			return err
		}
		defer s.undone(ctx, &err, "move the benchmark back to all cores", func(ctx context.Context) error { return s.own.lab.Pin(ctx, "") })
	} else {
		s.note("The reader did not have a core of its own: that needs two cores and taskset.")
	}
	if err := s.pinned(ctx, u, cores, own); err != nil {
		return err
	}
	s.report.Own = own
	return nil
}

// pinned measures the lanes while everything but the servers is on the clients' cores.
func (s *suite) pinned(ctx context.Context, u *lab.Upstream, cores lab.Cores, own *report.OwnCore) error {
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
	// The reader does not follow this stack: updates there take as much from the load generator, and
	// nothing from the reader. Its own reader answers the proxies.
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
		l.beside = func(ctx context.Context, d time.Duration) error {
			_, err := lab.Updates{Writer: writer.Addr, Posts: posts, Rate: besideWrites, Duration: d}.Run(ctx)
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

	// The same reader with all cores, which it shares with the load generator.
	if err := s.own.lab.Pin(ctx, ""); err != nil {
		return err
	}
	if reader, err = keep(s.own.lab.Reader(ctx, u, "", false)); err != nil {
		return err
	}
	own.Shared, err = s.lanes(ctx, hot, []lane{s.ownLane(report.LaneFast, reader, 1), s.ownLane(report.LaneFast, reader, depth)})
	return err
}

// ownLane is a closed loop of a process of the lab.
func (s *suite) ownLane(name string, p *lab.Process, depth int) lane {
	closed := s.closed(p.Addr, "/post", depth)
	closed.Duration, closed.Threads = s.ownRound, 1
	closed.Pause = 10 * time.Millisecond // the load generator has one core
	return lane{name: name, via: report.ViaDirect, closed: closed, cpu: processCPU(p)}
}

type keeper func(*lab.Process, error) (*lab.Process, error)

// ownLanes are the reader's lanes and those of the peers that return the bytes of its answer.
func (s *suite) ownLanes(ctx context.Context, cores lab.Cores, reader *lab.Process, own *report.OwnCore, keep keeper) ([]lane, error) {
	a, err := s.ask(ctx, reader.Addr, func(c *wire.Conn) (wire.Answer, error) {
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

// proxyLanes are the gateway that stands in for APISIX and its peers, all in front of the same reader.
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
