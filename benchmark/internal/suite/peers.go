package suite

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/peer"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// peers are the servers that are measured beside ours. They are started when they are needed first.
type peers struct {
	started *peer.Nginx
	err     error
	told    bool // that there is none
}

func (p *peers) stop() {
	if p.started != nil {
		p.started.Stop()
		p.started = nil
	}
}

// nginx returns an nginx that serves a post of the size that the reads have on average.
func (p *peers) nginx(ctx context.Context, s *suite) (*peer.Nginx, error) {
	if p.started != nil || p.err != nil {
		return p.started, p.err
	}
	p.started, p.err = s.startNginx(ctx)
	if p.err == nil {
		s.report.Machine.NginxVersion = p.started.Version
	}
	return p.started, p.err
}

func (s *suite) startNginx(ctx context.Context) (*peer.Nginx, error) {
	conn, err := wire.Dial(ctx, s.addresses.Direct)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	mean := s.report.Workload.ReadBytes
	best, distance := wire.Answer{}, math.Inf(1)
	for rank := range min(s.posts, 1000) {
		body := s.mix.Post(rank, 0).Encode(time.Unix(1e9, 0)).Body
		d := math.Abs(float64(len(body)) - mean)
		if d >= distance || !peer.Quotable(string(body)) {
			continue
		}
		a, err := conn.Get("/post?id="+workload.MixID(rank), "")
		if err != nil {
			return nil, err
		}
		if a.Status != http.StatusOK {
			return nil, load.Wrong("%s was answered with status %d", workload.MixID(rank), a.Status)
		}
		best, distance = a, d
	}
	if best.Body == nil {
		return nil, errors.New("no post has a content that nginx's configuration can hold")
	}
	return peer.StartNginx(ctx, string(best.Body), best.Header.Get("Etag"), best.Header.Get("X-Version"))
}

// redisOptions are how Redis is reached.
func (s *suite) redisOptions(ctx context.Context) (*redis.Options, error) {
	server, err := s.runtime.Redis(ctx)
	if err != nil {
		return nil, err
	}
	// MaxRetries: what is measured or waited for is asked once at a time.
	return &redis.Options{Addr: server.Addr, Username: server.Username, Password: server.Password, MaxRetries: -1}, nil
}
