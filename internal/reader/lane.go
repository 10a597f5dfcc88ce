package reader

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/service"
)

// lane answers reads of /post in the fast lane, with the bytes that net/http would send for what
// handler says.
type lane struct {
	*getter
	server *fastlane.Server // set once, before the first connection
	podID  string

	requests [2][len(laneCodes)]prometheus.Counter // by HEAD, status
	bytes    prometheus.Counter
	duration prometheus.Observer
	conns    atomic.Uint32 // that have been opened: spreads the samples
}

// laneCodes are the statuses that a read can have.
var laneCodes = [...]int{http.StatusOK, http.StatusNotModified, http.StatusNotFound, http.StatusBadRequest, http.StatusServiceUnavailable, http.StatusInternalServerError}

// sampleEvery is how many requests of a connection come to one that is timed: the clock would cost
// as much as the look-up. The sample is observed as often, so that it weighs as much as the requests
// for which it stands: net/http times each of its own. Counts are exact.
const sampleEvery = 64

func newLane(g *getter, podID string, m *service.HTTPMetrics) *lane {
	l := &lane{getter: g, podID: podID, bytes: m.Bytes.WithLabelValues(postPath), duration: m.Duration.WithLabelValues(postPath)}
	for i, method := range []string{"get", "head"} {
		for j, code := range laneCodes {
			l.requests[i][j] = m.Requests.WithLabelValues(postPath, method, strconv.Itoa(code))
		}
	}
	return l
}

// conn returns the handler of one connection. Its first sample is among its first sampleEvery
// requests, at a place that differs from connection to connection.
func (l *lane) conn() fastlane.Handler {
	return &laneConn{lane: l, untilSample: 1 + l.conns.Add(1)*37%sampleEvery}
}

// laneConn answers the requests of one connection. What it counts it adds to the metrics when
// answers have been written, once for all that were written together.
type laneConn struct {
	*lane
	counts      [2][len(laneCodes)]uint32
	hits        int
	body        int // bytes
	served      bool
	untilSample uint32    // number of requests up to and including the next sample: 1 to sampleEvery
	sampled     time.Time // start of a sample whose answer has not been written yet, else zero
}

// Serve implements fastlane.Handler.
func (c *laneConn) Serve(out *fastlane.Output, r *fastlane.Request) {
	var began time.Time
	if c.untilSample--; c.untilSample == 0 {
		c.untilSample = sampleEvery
		began = time.Now()
	}
	q := request{id: r.Value, ifNoneMatch: r.IfNoneMatch, minVersion: r.MinVersion}
	a, ok := c.look(&q)
	if !ok {
		ok = out.Flush() // the answers before this one need not wait for Redis
		c.Flushed()
		if !ok {
			return
		}
		a = c.wait(context.Background(), &q)
	}
	c.count(&a, r.Head)
	if !began.IsZero() {
		c.sampled = began // only now: the call of Flushed above is for earlier answers
	}

	closing := out.Closing()
	b := out.Buffer()
	switch a.status {
	case http.StatusOK:
		b = append(b, "HTTP/1.1 200 OK\r\n"+headerType+": "+mediaType+"\r\n"+headerCaching+": "+caching...)
	case http.StatusNotModified:
		b = append(b, "HTTP/1.1 304 Not Modified\r\n"+headerCaching+": "+caching...)
	default:
		c.problem(out, &a, r.Head, closing)
		return
	}
	b = c.common(b, closing)
	b = append(b, "\r\n"+headerETag+": "...)
	b = append(b, a.etag...)
	b = append(b, "\r\n"+headerVersion+": "...)
	b = a.entry.Token().Append(b)
	if a.status == http.StatusNotModified {
		out.SetBuffer(append(b, "\r\n\r\n"...))
		return
	}
	b = append(b, "\r\n"+headerLength+": "...)
	b = strconv.AppendInt(b, int64(len(a.entry.Value)), 10)
	out.SetBuffer(append(b, "\r\n\r\n"...))
	if !r.Head {
		out.Body(a.entry.Value)
		c.body += len(a.entry.Value)
	}
}

// common appends what every answer has.
func (c *laneConn) common(b []byte, closing bool) []byte {
	b = append(b, "\r\n"+headerServedBy+": "...)
	b = append(b, c.podID...)
	b = append(b, "\r\nDate: "...)
	b = append(b, c.server.Date()...)
	if closing {
		b = append(b, "\r\nConnection: close"...)
	}
	return b
}

// problem answers with a problem document.
func (c *laneConn) problem(out *fastlane.Output, a *answer, head, closing bool) {
	body := a.problem.Bytes()
	b := append(out.Buffer(), "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(a.status)...)
	b = append(b, "\r\n"+headerType+": "+service.ProblemType+"\r\n"+headerCaching+": no-store"...)
	b = c.common(b, closing)
	if a.status == http.StatusServiceUnavailable {
		b = append(b, "\r\n"+headerRetryAfter+": "+retryAfter...)
	}
	b = append(b, "\r\n"+headerLength+": "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	if !head {
		b = append(b, body...)
		c.body += len(body)
	}
	out.SetBuffer(b)
}

func (c *laneConn) count(a *answer, head bool) {
	c.served = true
	if a.hit {
		c.hits++
	}
	method := 0
	if head {
		method = 1
	}
	for i, code := range laneCodes {
		if code == a.status {
			c.counts[method][i]++
			return
		}
	}
}

// Flushed implements fastlane.Handler.
func (c *laneConn) Flushed() {
	if !c.served {
		return
	}
	c.served = false
	for method := range c.counts {
		for i, n := range c.counts[method] {
			if n > 0 {
				c.requests[method][i].Add(float64(n))
				c.counts[method][i] = 0
			}
		}
	}
	if c.hits > 0 {
		c.replica.CountHits(c.hits)
		c.hits = 0
	}
	if c.body > 0 {
		c.bytes.Add(float64(c.body))
		c.body = 0
	}
	if !c.sampled.IsZero() {
		took := time.Since(c.sampled).Seconds()
		for range sampleEvery {
			c.duration.Observe(took)
		}
		c.sampled = time.Time{}
	}
}
