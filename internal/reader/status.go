package reader

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// state tells others what the reader can do.
type state struct {
	replica  *replica.Replica
	redis    *redisnode.Finder // that the replica uses
	podID    string
	stopping atomic.Bool
}

// snapshot is how far a load of the whole set is.
type snapshot struct {
	Loaded      int64    `json:"loaded"`
	Total       int64    `json:"total"`        // an estimate
	SecondsLeft *float64 `json:"seconds_left"` // null while nothing is known
}

// report is what /status tells.
type report struct {
	PodID          string    `json:"pod_id"`
	Ready          bool      `json:"ready"`
	Degraded       bool      `json:"degraded"`
	Epoch          string    `json:"epoch"`
	AppliedVersion uint64    `json:"applied_version"`
	NewestVersion  uint64    `json:"newest_version"`
	LagVersions    uint64    `json:"lag_versions"`
	LagSeconds     float64   `json:"lag_seconds"`
	Entries        int64     `json:"entries"`
	Bytes          int64     `json:"bytes"`
	MaxBytes       int64     `json:"max_bytes"`
	Complete       bool      `json:"complete"`
	Synced         bool      `json:"synced"`
	Subscription   string    `json:"subscription"` // live or down
	Snapshot       *snapshot `json:"snapshot"`
	Reasons        []string  `json:"reasons"`

	Redis redisnode.Server `json:"redis"`
}

// readiness is what /ready tells.
type readiness struct {
	Status     string    `json:"status"` // loading, ready, degraded or stopping
	PodID      string    `json:"pod_id"`
	Entries    int64     `json:"entries"`
	LagSeconds float64   `json:"lag_seconds"`
	Snapshot   *snapshot `json:"snapshot,omitempty"`
	Reasons    []string  `json:"reasons,omitempty"`
}

// stoppingMetric tells a reader that somebody stops from one that dies: the next scrape is too late for both.
func (s *state) stoppingMetric() float64 {
	if s.stopping.Load() {
		return 1
	}
	return 0
}

func (s *state) serveHealth(w http.ResponseWriter, _ *http.Request) {
	httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ok", "pod_id": s.podID})
}

// serveReady answers 200 from the first complete load until the reader stops: a reader whose Redis
// is away still has all the posts, and is better than none.
func (s *state) serveReady(w http.ResponseWriter, _ *http.Request) {
	now := s.replica.Status()
	body := readiness{
		PodID:      s.podID,
		Entries:    now.Entries,
		LagSeconds: now.Lag.Seconds(),
		Snapshot:   progress(now.Snapshot),
		Reasons:    s.reasons(&now),
	}
	code := http.StatusServiceUnavailable
	switch {
	case s.stopping.Load():
		body.Status = "stopping"
	case !now.Ready:
		body.Status = "loading"
	case now.Degraded:
		code, body.Status = http.StatusOK, "degraded"
	default:
		code, body.Status = http.StatusOK, "ready"
	}
	httpkit.JSON(w, code, body)
}

func (s *state) serveStatus(w http.ResponseWriter, _ *http.Request) {
	now := s.replica.Status()
	body := report{
		PodID:          s.podID,
		Ready:          now.Ready && !s.stopping.Load(),
		Degraded:       now.Degraded,
		Epoch:          fmt.Sprintf("%016x", now.Applied.Epoch),
		AppliedVersion: now.Applied.Version,
		NewestVersion:  now.Newest.Version,
		LagVersions:    now.LagVersions,
		LagSeconds:     now.Lag.Seconds(),
		Entries:        now.Entries,
		Bytes:          now.Bytes,
		MaxBytes:       now.MaxBytes,
		Complete:       now.Complete,
		Synced:         now.Synced,
		Subscription:   "down",
		Snapshot:       progress(now.Snapshot),
		Reasons:        s.reasons(&now),
		Redis:          s.redis.Server(),
	}
	if now.Subscribed {
		body.Subscription = "live"
	}
	if body.Reasons == nil {
		body.Reasons = []string{}
	}
	httpkit.JSON(w, http.StatusOK, body)
}

// reasons says in words what is not as it should be.
func (s *state) reasons(now *replica.Status) (reasons []string) {
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if s.stopping.Load() {
		add("the reader is stopping")
	}
	if p := now.Snapshot; p != nil {
		add("loading all posts (%s): %d of about %d", p.Reason, p.Loaded, p.Total)
	} else if !now.Ready && !now.Synced {
		add("the posts are not loaded")
	}
	if now.Problem != "" {
		add("%s", now.Problem)
	}
	if !now.Subscribed {
		why := ""
		if now.SubProblem != "" && now.SubProblem != now.Problem {
			why = ": " + now.SubProblem
		}
		add("the subscription to updates is not live%s", why)
	}
	switch {
	case now.NoHistory:
		add("Redis has posts but no epoch, which somebody has deleted: posts may be stale until the next write begins a new history")
	case now.Ready && !now.Synced:
		add("updates may be missing for the last %.1f s", now.Lag.Seconds())
	}
	if now.Ready && now.Snapshot == nil && !now.Complete && !now.NoHistory {
		add("not all posts fit into memory: the others are read from Redis")
	}
	return append(reasons, now.Hazards...)
}

func progress(p *replica.SnapshotProgress) *snapshot {
	if p == nil {
		return nil
	}
	s := &snapshot{Loaded: p.Loaded, Total: max(p.Loaded, p.Total)}
	if left, ok := p.Left(time.Now()); ok {
		seconds := left.Seconds()
		s.SecondsLeft = &seconds
	}
	return s
}
