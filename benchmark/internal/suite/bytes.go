package suite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// revisitShares are the shares of revisits, which are requests for posts that the client has read before.
var revisitShares = []float64{0, 0.2, 0.4, 0.6, 0.8, 0.95}

// bytes counts the bytes that a client transfers when it revisits posts, without and with conditional requests.
func (s *suite) bytes(ctx context.Context) error {
	s.report.Bytes = nil
	for _, share := range revisitShares {
		s.progress.Step(fmt.Sprintf("%.0f %% revisits", 100*share), 2*time.Duration(s.revisits)*100*time.Microsecond)
		asked := sequence(s.reads.Draw(4, 4*s.revisits), s.revisits, share)
		r := report.Revisits{Share: share, Requests: len(asked)}
		var err error
		if r.Plain, r.PlainSent, _, err = s.visit(ctx, asked, false); err != nil {
			return err
		}
		if r.Conditional, r.ConditionalSent, r.NotModified, err = s.visit(ctx, asked, true); err != nil {
			return err
		}
		s.report.Bytes = append(s.report.Bytes, r)
		s.progress.Say("%3.0f %% revisits: %.0f %% fewer bytes", 100*share, 100*r.Saved())
	}
	return nil
}

// sequence returns n ranks, of which the given share occurs earlier in the sequence. New ranks come from drawn;
// when it is used up, all others are revisits.
func sequence(drawn []int, n int, share float64) []int {
	rng := rand.New(rand.NewPCG(5, 0))
	seen := map[int]bool{}
	var known, out []int
	for len(out) < n {
		again := len(known) > 0 && rng.Float64() < share
		for !again && len(drawn) > 0 && seen[drawn[0]] {
			drawn = drawn[1:]
		}
		if again || len(drawn) == 0 {
			out = append(out, known[rng.IntN(len(known))])
			continue
		}
		rank := drawn[0]
		seen[rank] = true
		known = append(known, rank)
		out = append(out, rank)
	}
	return out
}

// visit reads the posts of the ranks over one connection and returns the number of bytes transferred.
func (s *suite) visit(ctx context.Context, asked []int, conditional bool) (received, sent int64, notModified int, err error) {
	conn, err := wire.Dial(ctx, s.addresses.Direct)
	if err != nil {
		return 0, 0, 0, err
	}
	defer conn.Close()
	etags := map[int]string{}
	for _, rank := range asked {
		if ctx.Err() != nil {
			return 0, 0, 0, ctx.Err()
		}
		header := ""
		if etag := etags[rank]; etag != "" && conditional {
			header = "If-None-Match: " + etag + "\r\n"
		}
		a, err := conn.Get("/post?id="+workload.MixID(rank), header)
		if err != nil {
			return 0, 0, 0, load.Wrong("GET %s: %v", workload.MixID(rank), err)
		}
		s.counts.Statuses.Add(1)
		switch {
		case a.Status == http.StatusNotModified && header != "":
			notModified++
		case a.Status == http.StatusOK && header == "":
			if err := s.mix.Check(rank, 0, a.Body); err != nil {
				return 0, 0, 0, load.Wrong("%v", err)
			}
			s.counts.Bodies.Add(1)
			etags[rank] = a.Header.Get("Etag")
		default:
			return 0, 0, 0, load.Wrong("GET %s with header %q returned status %d", workload.MixID(rank), header, a.Status)
		}
	}
	received, sent = conn.Bytes()
	return received, sent, notModified, nil
}
