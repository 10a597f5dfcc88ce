package writer

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/loglimit"
)

const (
	checkPeriod  = time.Second            // time between two checks whether Redis accepts writes
	checkTimeout = 500 * time.Millisecond // timeout of a check
	hazardPeriod = 10 * time.Second       // time between two checks of the settings with which Redis may lose posts
)

// statusNoRedis is the status of a writer whose Redis does not answer.
const statusNoRedis = "no redis"

// state records whether Redis accepts writes. watch updates it; all other methods are safe for concurrent use.
type state struct {
	publisher *publisher.Publisher
	log       *slog.Logger
	suspected chan struct{} // holds a token if a write has failed since the last check
	checked   atomic.Pointer[checked]
	begun     chan struct{} // closed after the first check, or when watch ends
	stopping  atomic.Bool
	repeated  loglimit.Limit
}

// checked is the result of a check.
type checked struct {
	status  string   // status that /ready reports
	problem string   // reason why Redis accepts no writes, "" if it does
	format  bool     // posts in Redis have another format; Redis would accept writes, so the writer must refuse them
	hazards []string // settings with which Redis may lose posts
}

func newState(p *publisher.Publisher, log *slog.Logger) *state {
	s := &state{publisher: p, log: log, suspected: make(chan struct{}, 1), begun: make(chan struct{})}
	s.checked.Store(&checked{status: statusNoRedis, problem: "Redis has not been checked yet"})
	return s
}

// suspect makes watch check Redis immediately. It is called after a failed write and does not block.
func (s *state) suspect() {
	select {
	case s.suspected <- struct{}{}:
	default:
	}
}

// watch checks Redis until ctx is done.
func (s *state) watch(ctx context.Context) {
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	begin := sync.OnceFunc(func() { close(s.begun) })
	defer begin()
	var hazardsChecked time.Time
	for first := true; ctx.Err() == nil; first = false {
		last := s.checked.Load()
		now := &checked{status: "ready", hazards: last.hazards}
		if err := s.check(ctx); err != nil {
			now.status, now.problem = unready(err)
			// Only a successful check shows that they are gone: Redis may accept a write after a check has timed out.
			now.format = last.format || isFormat(err)
		}
		if now.problem == "" && time.Since(hazardsChecked) >= hazardPeriod {
			now.hazards, hazardsChecked = s.hazards(ctx), time.Now()
		}
		if ctx.Err() != nil {
			return
		}
		s.checked.Store(now)
		begin()
		switch {
		case now.problem != "" && (first || last.problem == ""):
			s.log.Warn("Redis accepts no writes; writes are answered with 503", "err", now.problem)
		case now.problem != "" && now.problem != last.problem:
			s.repeated.Log(s.log.Warn, time.Now(), "Redis still accepts no writes", "err", now.problem)
		case now.problem == "" && last.problem != "" && !first:
			s.log.Info("Redis accepts writes again")
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-s.suspected:
		}
	}
}

// guard refuses writes while posts in Redis have another format. The first writes of a process wait for its first check,
// because that may find such posts.
func (s *state) guard(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		<-s.begun // within checkTimeout
		if now := s.checked.Load(); now.format {
			w.Header().Set("Retry-After", "1")
			httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "nothing was written: " + now.problem}.WriteTo(w)
			return
		}
		next(w, r)
	}
}

// check returns an error if Redis would not accept a write now.
func (s *state) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return s.publisher.Check(ctx)
}

// hazards returns the settings with which Redis may lose posts, and logs those that are new.
func (s *state) hazards(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found, err := s.publisher.Hazards(ctx)
	if err != nil {
		s.log.Debug("cannot check the settings of Redis", "err", err)
	}
	for _, h := range found {
		if !slices.Contains(s.checked.Load().hazards, h) {
			s.log.Warn("Redis may lose posts", "reason", h)
		}
	}
	return found
}

func (s *state) serveHealth(w http.ResponseWriter, _ *http.Request) {
	httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReady answers 200 while Redis accepts writes.
func (s *state) serveReady(w http.ResponseWriter, _ *http.Request) {
	type readiness struct {
		Status  string   `json:"status"` // ready, no writes, no redis or stopping
		Reasons []string `json:"reasons,omitempty"`
	}
	now := s.checked.Load()
	switch {
	case s.stopping.Load():
		httpkit.JSON(w, http.StatusServiceUnavailable, readiness{"stopping", []string{"the writer is stopping"}})
	case now.problem != "":
		httpkit.JSON(w, http.StatusServiceUnavailable, readiness{now.status, append([]string{now.problem}, now.hazards...)})
	default:
		httpkit.JSON(w, http.StatusOK, readiness{now.status, now.hazards})
	}
}
