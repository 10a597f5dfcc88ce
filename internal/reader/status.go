package reader

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// state serves /health, /ready and /status.
type state struct {
	replica  *replica.Replica
	redis    *redisnode.Finder // the one that replica uses
	podID    string
	stopping atomic.Bool // the drain has begun
}

// snapshot is the progress of a snapshot.
type snapshot struct {
	Loaded      int64    `json:"loaded"`       // posts loaded so far
	Total       int64    `json:"total"`        // estimated number of posts
	SecondsLeft *float64 `json:"seconds_left"` // null while there is no estimate
}

// file describes the snapshot file.
type file struct {
	CurrentAt  time.Time `json:"current_at"`  // when its posts were last known to be current
	AgeSeconds float64   `json:"age_seconds"` // time since then
	Entries    uint64    `json:"entries"`
	Bytes      int64     `json:"bytes"`
	Serving    bool      `json:"serving"` // the posts in memory are from the file, and Redis has not confirmed them
}

// report is the body of /status.
type report struct {
	PodID          string        `json:"pod_id"`
	Ready          bool          `json:"ready"`
	Degraded       bool          `json:"degraded"`
	Epoch          string        `json:"epoch"`
	AppliedVersion uint64        `json:"applied_version"`
	NewestVersion  uint64        `json:"newest_version"`
	LagVersions    uint64        `json:"lag_versions"`
	LagSeconds     float64       `json:"lag_seconds"`
	Entries        int64         `json:"entries"`
	Bytes          int64         `json:"bytes"`
	MaxBytes       int64         `json:"max_bytes"`
	Complete       bool          `json:"complete"`
	Digest         *audit.Digest `json:"digest"` // of all posts at applied_version; null while memory does not hold exactly that state
	Synced         bool          `json:"synced"`
	Subscription   string        `json:"subscription"` // live or down
	Snapshot       *snapshot     `json:"snapshot"`
	File           *file         `json:"file"` // null without a snapshot file
	Reasons        []string      `json:"reasons"`

	Redis redisnode.Server `json:"redis"`
}

// readiness is the body of /ready.
type readiness struct {
	Status     string    `json:"status"` // loading, ready, degraded or stopping
	PodID      string    `json:"pod_id"`
	Entries    int64     `json:"entries"`
	LagSeconds float64   `json:"lag_seconds"`
	Snapshot   *snapshot `json:"snapshot,omitempty"`
	File       *file     `json:"file,omitempty"` // while the posts are from the snapshot file
	Reasons    []string  `json:"reasons,omitempty"`
}

// stoppingMetric lets alerts distinguish a reader that was stopped from one that crashed: neither answers the
// next scrape, but the stopped one has reported 1 before.
func (s *state) stoppingMetric() float64 {
	if s.stopping.Load() {
		return 1
	}
	return 0
}

func (s *state) serveHealth(w http.ResponseWriter, _ *http.Request) {
	httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ok", "pod_id": s.podID})
}

// serveReady answers 200 from the end of the first snapshot until the drain begins, also while Redis is unreachable,
// because the reader still has all posts in memory. If Redis is unreachable from the start, it answers 200 once the
// reader serves the snapshot file.
func (s *state) serveReady(w http.ResponseWriter, _ *http.Request) {
	now := s.replica.Status()
	body := readiness{
		PodID:      s.podID,
		Entries:    now.Entries,
		LagSeconds: now.Lag.Seconds(),
		Snapshot:   progress(now.Snapshot),
		Reasons:    s.reasons(&now),
	}
	if now.FromFile {
		body.File = fileOf(&now)
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
		Digest:         audit.NewDigest(now.Digest),
		Synced:         now.Synced,
		Subscription:   "down",
		Snapshot:       progress(now.Snapshot),
		File:           fileOf(&now),
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

// reasons describes everything that is wrong, for operators.
func (s *state) reasons(now *replica.Status) (reasons []string) {
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if s.stopping.Load() {
		add("the reader is stopping: it still serves, but should get no new connections")
	}
	if p := now.Snapshot; p != nil {
		add("loading a snapshot of all posts (%s): %d of about %d", p.Reason, p.Loaded, p.Total)
	} else if now.FromFile && now.File != nil {
		age := time.Since(now.File.Current).Round(time.Second)
		if now.Ready {
			add("serving the posts of the snapshot file, which are %v old: Redis has not answered since the start; other ids get 503", age)
		} else {
			add("the posts of the snapshot file, which are %v old, are loaded and being brought up to date from Redis", age)
		}
	} else if !now.Ready && !now.Synced {
		add("the posts have not been loaded yet")
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
		add("the epoch key in Redis was deleted: reads may be stale until the next write begins a new history")
	case now.Ready && !now.Synced:
		add("reads may be stale: updates of the last %.1f s may be missing", now.Lag.Seconds())
	}
	if now.Ready && now.Snapshot == nil && !now.Complete && !now.NoHistory && !now.FromFile {
		add("not all posts fit into memory: reads of the others go to Redis")
	}
	return append(reasons, now.Hazards...)
}

// fileOf converts the state of the snapshot file for JSON. It returns nil if there is none.
func fileOf(now *replica.Status) *file {
	if now.File == nil {
		return nil
	}
	return &file{
		CurrentAt: now.File.Current.UTC(), AgeSeconds: time.Since(now.File.Current).Seconds(),
		Entries: now.File.Entries, Bytes: now.File.Bytes, Serving: now.FromFile && now.Ready,
	}
}

// progress converts the progress of a snapshot for JSON. It returns nil if no snapshot is running.
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
