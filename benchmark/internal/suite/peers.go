package suite

import (
	"context"
	"errors"
	"math"
	"net/http"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// fixed is a peer that returns the same answer to every request.
type fixed struct {
	*lab.Process
	body string
}

func (f fixed) check(_, status int, body []byte) error {
	if status != http.StatusOK || string(body) != f.body {
		return load.Wrong("a peer returned status %d: %.100q", status, body)
	}
	return nil
}

// peers are the servers that are measured for comparison with the stack. They are started on first use.
type peers struct {
	lab   *lab.Lab
	nginx fixed
	err   error // reason why there is no nginx
}

// nginx returns an nginx that serves a post of the average size of the reads. If there is none, the report has a
// note.
func (s *suite) nginx(ctx context.Context) (fixed, error) {
	p := &s.peers
	if p.err != nil || p.nginx.Process != nil {
		return p.nginx, p.err
	}
	if p.nginx, p.err = s.startNginx(ctx); p.err != nil {
		s.note("nginx was not measured: %v.", p.err)
	} else {
		s.report.Machine.NginxVersion = p.nginx.Version
	}
	return p.nginx, p.err
}

func (s *suite) startNginx(ctx context.Context) (fixed, error) {
	conn, err := wire.Dial(ctx, s.addresses.Direct)
	if err != nil {
		return fixed{}, err
	}
	defer conn.Close()
	mean := s.report.Workload.ReadBytes
	best, distance := wire.Answer{}, math.Inf(1)
	for rank := range min(s.posts, 1000) {
		body := s.mix.Post(rank, 0).Encode(epoch).Body
		d := math.Abs(float64(len(body)) - mean)
		if d >= distance || !lab.Quotable(string(body)) {
			continue
		}
		a, err := conn.Get("/post?id="+workload.MixID(rank), "")
		if err != nil {
			return fixed{}, err
		}
		if a.Status != http.StatusOK {
			return fixed{}, load.Wrong("GET %s returned status %d", workload.MixID(rank), a.Status)
		}
		best, distance = a, d
	}
	if best.Body == nil {
		return fixed{}, errors.New("nginx's configuration cannot contain any of the posts")
	}
	answer := answerOf(best)
	p, err := s.peers.lab.Nginx(ctx, answer, "")
	return fixed{p, answer.Body}, err
}

// answerOf converts the answer of a reader into the answer of a peer.
func answerOf(a wire.Answer) lab.Answer {
	return lab.Answer{Body: string(a.Body), ETag: a.Header.Get("Etag"), Version: a.Header.Get("X-Version")}
}

// redisOptions returns the options of a client of the stack's Redis.
func (s *suite) redisOptions(ctx context.Context) (*redis.Options, error) {
	server, err := s.runtime.Redis(ctx)
	if err != nil {
		return nil, err
	}
	// No retries: a measurement sends each command once.
	return &redis.Options{Addr: server.Addr, Username: server.Username, Password: server.Password, MaxRetries: -1}, nil
}
