package reader

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
)

const (
	changesPath = "/changes"
	streamType  = "text/event-stream"
	linesType   = "application/x-ndjson"
)

// Times of a follower. The gateway's timeout for /changes must be longer than both heartbeat and longestPoll.
const (
	heartbeat   = 10 * time.Second // time without events after which a stream gets a heartbeat
	defaultPoll = 20 * time.Second // time for which a poll waits for an event
	longestPoll = 30 * time.Second
	slowClient  = 10 * time.Second // time for a write to a client; a large write gets more
	oldestWait  = 5 * time.Second  // time for which a new follower waits for its turn to read Redis's log
)

// lastEventID is the header with the position from which an EventSource resumes. It takes precedence over since.
const lastEventID = "Last-Event-ID"

// batchBytes is the target size of the events of one write, in bytes.
const batchBytes = 64 << 10

// streamBegin makes an EventSource reconnect after a second.
const streamBegin = "retry: 1000\n"

// changes serves the feed of changes: Server-Sent Events, or a long poll.
type changes struct {
	replica   *replica.Replica
	feed      *feed.Feed
	most      int64 // maximum number of followers
	heartbeat time.Duration
	buffers   sync.Pool // of *batch

	followers atomic.Int64
	sent      prometheus.Counter
	refused   prometheus.Counter
	ended     *prometheus.CounterVec
}

// batch is the scratch space of one write.
type batch struct {
	events []feed.Event
	text   []byte
}

func newChanges(r *replica.Replica, reg prometheus.Registerer) *changes {
	c := &changes{
		replica: r, feed: r.Feed(), heartbeat: heartbeat,
		buffers: sync.Pool{New: func() any { return new(batch) }},
		sent:    prometheus.NewCounter(prometheus.CounterOpts{Name: "changes_events_sent_total", Help: "Events sent to followers of /changes."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "changes_followers_refused_total", Help: "Requests for /changes that got 503 because there were too many followers."}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "changes_streams_ended_total", Help: "Streams of /changes that the reader ended, by reason: slow (the client accepted nothing for 10 s), gone (the history has ended or its log was trimmed), unavailable (Redis's log could not be read), stopping.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{endSlow, endGone, endUnavailable, endStopping} {
		c.ended.WithLabelValues(reason)
	}
	reg.MustRegister(c.sent, c.refused, c.ended,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "changes_followers", Help: "Clients that follow /changes."},
			func() float64 { return float64(c.followers.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "changes_window_bytes", Help: "Memory of the newest changes that are kept for followers, in bytes."},
			func() float64 { return float64(c.feed.WindowBytes()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "changes_log_steps_total", Help: "Reads of Redis's log for followers that are behind the changes in memory."},
			func() float64 { return float64(c.feed.LogSteps()) }))
	return c
}

// Reasons for which a stream ends.
const (
	endSlow        = "slow"
	endGone        = "gone"
	endUnavailable = "unavailable"
	endStopping    = "stopping"
	endLeft        = "left" // by the client, so it is not counted
)

func (c *changes) methods(origin string) httpkit.Methods {
	return withPreflight(httpkit.Methods{http.MethodGet: c.serve}, origin)
}

// Problems of /changes.
var (
	tooManyFollowers = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "this reader has as many followers of /changes as it may have: try again, or follow on another reader"}
	notLoaded        = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "this reader has not loaded the posts yet: try again"}
	logUnavailable   = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "since", Detail: "the changes after this version have to be read from Redis, and Redis did not answer in time: try again"}
	badSince         = httpkit.Problem{Status: http.StatusBadRequest, Field: "since", Detail: "this is not a version: send the X-Version of an answer, or the id of an event, once"}
	badWait          = httpkit.Problem{Status: http.StatusBadRequest, Field: "wait", Detail: "send a number of seconds from 0 to 30, once"}
)

// gone answers a position that can no longer be followed.
func gone(err error) *httpkit.Problem {
	return &httpkit.Problem{Status: http.StatusGone, Field: "since", Detail: err.Error() +
		": read all pages of /posts, then follow from the since of the last page"}
}

func (c *changes) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if n := c.followers.Add(1); n > c.most {
		c.followers.Add(-1)
		c.refused.Inc()
		refuse(w, &tooManyFollowers)
		return
	}
	defer c.followers.Add(-1)
	stream := accepts(r.Header["Accept"], streamType)
	from, wait, problem := c.parse(r, stream)
	if problem == nil && !c.replica.Status().Ready {
		problem = &notLoaded
	}
	if problem != nil {
		refuse(w, problem)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the server's would end the wait for the client's disconnect
	fo := c.feed.Follow(from)
	defer fo.Close()
	if stream {
		c.stream(w, r, rc, fo)
		return
	}
	c.poll(w, r, rc, fo, wait)
}

func refuse(w http.ResponseWriter, p *httpkit.Problem) {
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set(headerRetryAfter, retryAfter)
	}
	p.WriteTo(w)
}

// accepts reports whether an Accept header lists a media type by its name.
func accepts(lines []string, want string) bool {
	for item := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, _, _ := strings.Cut(item, ";")
		if strings.EqualFold(strings.TrimSpace(name), want) {
			return true
		}
	}
	return false
}

// parse returns the position to follow from: Last-Event-ID, which an EventSource sends when it reconnects, or since, or
// the present.
func (c *changes) parse(r *http.Request, stream bool) (from protocol.Position, wait time.Duration, problem *httpkit.Problem) {
	from, wait = c.feed.End(), defaultPoll
	seen := map[string]bool{}
	err := httpkit.EachParam(r.URL.RawQuery, func(name, value string) (err error) {
		switch {
		case name == "since" && seen[name]:
			problem = &badSince
		case name == "since":
			if from, err = protocol.ParsePosition(value); err != nil {
				problem, err = &badSince, nil
			}
		case name == "wait":
			seconds, err := strconv.ParseUint(value, 10, 8)
			wait = time.Duration(seconds) * time.Second
			if err != nil || wait > longestPoll || seen[name] {
				problem = &badWait
			}
		}
		seen[name] = true
		return err
	})
	if err != nil {
		problem = &httpkit.Problem{Status: http.StatusBadRequest, Detail: "the query " + err.Error()}
	}
	if last := r.Header.Get(lastEventID); stream && last != "" && problem == nil {
		if from, err = protocol.ParsePosition(last); err != nil {
			problem = &httpkit.Problem{Status: http.StatusBadRequest, Field: lastEventID, Detail: badSince.Detail}
		}
	}
	return from, wait, problem
}

// first takes the first events of a follower, and returns why that is impossible.
func (c *changes) first(ctx context.Context, fo *feed.Follower, b *batch) *httpkit.Problem {
	ctx, cancel := context.WithTimeout(ctx, oldestWait)
	defer cancel()
	events, err := fo.Take(ctx, b.events, batchBytes)
	switch {
	case err == nil:
		b.events = events
		return nil
	case errors.Is(err, feed.ErrGone):
		return gone(err)
	}
	return &logUnavailable
}

// stream sends events until the client leaves, the reader stops, or the follower cannot continue. The end is clean: the
// client resumes after its last event, and gets 410 if that is impossible.
func (c *changes) stream(w http.ResponseWriter, r *http.Request, rc *http.ResponseController, fo *feed.Follower) {
	ctx := r.Context()
	b := c.buffers.Get().(*batch)
	problem := c.first(ctx, fo, b)
	if problem != nil {
		c.release(b)
		if problem.Field == "since" && r.Header.Get(lastEventID) != "" {
			named := *problem
			named.Field, problem = lastEventID, &named
		}
		refuse(w, problem)
		return
	}
	w.Header().Set(headerType, streamType)
	w.Header().Set(headerCaching, "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must pass events on at once
	b.text = append(b.text[:0], streamBegin...)
	beat := time.NewTimer(0) // the first heartbeat comes at once: it has the position from which to resume
	defer beat.Stop()
	reason := ""
	for reason == "" {
		for i := range b.events {
			b.text = b.events[i].AppendSSE(b.text)
		}
		if len(b.text) > 0 {
			if c.write(w, rc, b.text) != nil {
				reason = endSlow
				break
			}
			c.sent.Add(float64(len(b.events)))
		}
		sent := len(b.events)
		c.release(b)
		due := false
		if sent > 0 {
			beat.Reset(c.heartbeat)
		} else {
			due = c.wait(ctx, fo, beat)
		}
		b = c.buffers.Get().(*batch)
		if b.text = b.text[:0]; due {
			b.text = appendHeartbeat(b.text, fo)
		}
		reason = c.next(ctx, fo, b)
	}
	c.release(b)
	if ctx.Err() == nil {
		c.ended.WithLabelValues(reason).Inc()
	}
}

// wait waits until there may be events, or the stream must end, or a heartbeat is due.
func (c *changes) wait(ctx context.Context, fo *feed.Follower, beat *time.Timer) (due bool) {
	select {
	case <-beat.C:
		beat.Reset(c.heartbeat)
		return true
	case <-fo.Wake():
	case <-c.feed.Stopping():
	case <-ctx.Done():
	}
	return false
}

// next takes the next events, and returns why the stream must end instead.
func (c *changes) next(ctx context.Context, fo *feed.Follower, b *batch) (reason string) {
	var err error
	b.events, err = fo.Take(ctx, b.events, batchBytes)
	if errors.Is(err, feed.ErrGone) {
		return endGone
	}
	select {
	case <-c.feed.Stopping():
		return endStopping
	case <-ctx.Done(): // wait and Take return at once from now on, so the loop would spin until a write fails
		return endLeft
	default:
	}
	if err != nil {
		return endUnavailable
	}
	return ""
}

// appendHeartbeat appends an event without data: a client dispatches nothing and resumes from its id.
func appendHeartbeat(dst []byte, fo *feed.Follower) []byte {
	dst = append(dst, ": heartbeat\nid: "...)
	return append(fo.At().Append(dst), "\n\n"...)
}

// release returns a batch to the pool, unless a large event has made it large.
func (c *changes) release(b *batch) {
	if cap(b.text) <= 4*batchBytes {
		clear(b.events) // otherwise it keeps them alive
		b.events = b.events[:0]
		c.buffers.Put(b)
	}
}

// write sends text. It fails if the client accepts too little of it in time.
func (c *changes) write(w http.ResponseWriter, rc *http.ResponseController, text []byte) error {
	_ = rc.SetWriteDeadline(time.Now().Add(slowClient + time.Duration(len(text))*time.Second/batchBytes))
	if _, err := w.Write(text); err != nil {
		return err
	}
	return rc.Flush()
}

// poll waits for events, and answers with those that have come and with the position after them.
func (c *changes) poll(w http.ResponseWriter, r *http.Request, rc *http.ResponseController, fo *feed.Follower, wait time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	b := new(batch)
	problem := c.first(r.Context(), fo, b)
	for done := false; problem == nil && len(b.events) == 0 && !done; {
		select {
		case <-fo.Wake():
			problem = c.first(r.Context(), fo, b)
		case <-c.feed.Stopping():
			done = true
		case <-ctx.Done():
			done = true
		}
	}
	if problem != nil {
		refuse(w, problem)
		return
	}
	for i := range b.events {
		b.text = b.events[i].AppendLine(b.text)
	}
	b.text = append(b.text, `{"next":"`...)
	b.text = append(fo.At().Append(b.text), "\"}\n"...)
	w.Header().Set(headerType, linesType)
	w.Header().Set(headerCaching, "no-store")
	w.Header().Set(headerLength, strconv.Itoa(len(b.text)))
	if c.write(w, rc, b.text) == nil {
		c.sent.Add(float64(len(b.events)))
	}
}
