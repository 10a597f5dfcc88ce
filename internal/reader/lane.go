package reader

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// lane answers reads of /post in the fast lane, with the same bytes that handler sends through net/http.
type lane struct {
	*getter
	server *fastlane.Server // set before the first connection
	signed *signature

	requests [2][len(laneCodes)]prometheus.Counter // by method (0 GET, 1 HEAD) and index of the status in laneCodes
	bytes    prometheus.Counter
	duration prometheus.Observer
	conns    atomic.Uint32 // number of connections opened; spreads the samples
}

// laneCodes lists the possible statuses of a read.
var laneCodes = [...]int{http.StatusOK, http.StatusNotModified, http.StatusNotFound, http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusServiceUnavailable, http.StatusInternalServerError}

// sampleEvery is the sampling interval of the duration: one in sampleEvery requests of a connection is
// timed, because reading the clock costs as much as the look-up. Each sample is observed sampleEvery times,
// so that it has the right weight beside the requests of the std lane, which are all timed. Counters are
// exact.
const sampleEvery = 64

func newLane(g *getter, signed *signature, m *httpkit.HTTPMetrics) *lane {
	l := &lane{getter: g, signed: signed, bytes: m.Bytes.WithLabelValues(postPath), duration: m.Duration.WithLabelValues(postPath)}
	for i, method := range []string{"get", "head"} {
		for j, code := range laneCodes {
			l.requests[i][j] = m.Requests.WithLabelValues(postPath, method, strconv.Itoa(code))
		}
	}
	return l
}

// conn returns the handler of one connection. The position of its first sample differs from connection to
// connection, and is always within the first sampleEvery requests.
func (l *lane) conn() fastlane.Handler {
	return &laneConn{lane: l, untilSample: 1 + l.conns.Add(1)*37%sampleEvery}
}

// laneConn answers the requests of one connection. It counts locally and updates the metrics once per
// flush of pipelined responses.
type laneConn struct {
	*lane
	id          []byte                    // buffer for the id, reused
	counts      [2][len(laneCodes)]uint32 // requests since the last flush, indexed like lane.requests
	hits        int                       // hits since the last flush
	body        int                       // bytes of bodies since the last flush
	served      bool                      // a request was served since the last flush
	untilSample uint32                    // number of requests up to and including the next sample: 1 to sampleEvery
	sampled     time.Time                 // start of the sampled request if its response is not flushed yet, else zero
}

// readPrefix begins a request for a post.
var readPrefix = []byte("GET " + postPath + "?id=")

// Prefetch implements fastlane.Prefetcher.
func (c *laneConn) Prefetch(b []byte) (seen int) {
	var ids [store.PrefetchMax][]byte
	n, seen := nextIDs(b, &ids)
	c.replica.Prefetch(ids[:n])
	return seen
}

// nextIDs finds the ids of the reads in b, and returns their number and how many of the bytes it has looked at. It takes
// every text that looks like the beginning of a read for one: a wrong guess costs a look-up.
func nextIDs(b []byte, ids *[store.PrefetchMax][]byte) (n, seen int) {
	rest := b
	for n < len(ids) {
		i := bytes.Index(rest, readPrefix)
		if i < 0 {
			return n, len(b)
		}
		id, after, whole := bytes.Cut(rest[i+len(readPrefix):], []byte{' '})
		if !whole {
			return n, len(b)
		}
		ids[n], rest = id, after
		n++
	}
	return n, len(b) - len(rest)
}

// Serve implements fastlane.Handler.
func (c *laneConn) Serve(out *fastlane.Output, r *fastlane.Request) {
	var began time.Time
	if c.untilSample--; c.untilSample == 0 {
		c.untilSample = sampleEvery
		began = time.Now()
	}
	q := request{ifMatch: r.IfMatch, ifNoneMatch: r.IfNoneMatch, minVersion: r.MinVersion, cookie: r.Cookie}
	var a answer
	ok := true
	// The unsafe string aliases the read buffer, and idOf does not keep it.
	if id, problem := idOf(c.id[:0], unsafe.String(unsafe.SliceData(r.Query), len(r.Query))); problem != nil {
		a = failed(problem)
	} else {
		if q.id = id; len(id) <= post.MaxID {
			c.id = id
		}
		a, ok = c.lookUp(&q)
	}
	if !ok {
		ok = out.Flush() // earlier pipelined responses must not wait for Redis
		c.Flushed()
		if !ok {
			return
		}
		a = c.wait(context.Background(), &q)
	}
	c.count(&a, r.Head)
	if !began.IsZero() {
		c.sampled = began // only now, because the call of Flushed above was for earlier responses
	}

	closing := out.Closing()
	b := appendVersion(out.Buffer(), r.HTTP10)
	switch a.status {
	case http.StatusOK:
		b = append(b, "200 OK\r\n"+headerType+": "+mediaType+"\r\n"+headerCaching+": "+caching...)
	case http.StatusNotModified:
		b = append(b, "304 Not Modified\r\n"+headerCaching+": "+caching...)
	default:
		body := a.problem.Bytes()
		out.SetBuffer(c.problem(b, a.status, body, r.Head, connectionOf(r.HTTP10, closing)))
		if !r.Head {
			c.body += len(body)
		}
		return
	}
	b = c.common(b, connectionOf(r.HTTP10, closing))
	b = append(b, "\r\n"+headerETag+": "...)
	b = append(b, a.etag...)
	b = append(b, "\r\n"+headerVersion+": "...)
	b = protocol.Token{Epoch: a.entry.Epoch, Version: a.entry.Version}.Append(b)
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

// refuse is a reader's fastlane.Config.Refuse.
func (l *lane) refuse(b []byte, status int, detail string, head bool) []byte {
	p := httpkit.Problem{Status: status, Detail: detail}
	return l.problem(appendVersion(b, false), status, p.Bytes(), head, connectionOf(false, true))
}

// appendVersion starts a status line with the client's HTTP version, as net/http does.
func appendVersion(b []byte, http10 bool) []byte {
	if http10 {
		return append(b, "HTTP/1.0 "...)
	}
	return append(b, "HTTP/1.1 "...)
}

// connectionOf returns the Connection header line, preceded by CRLF, or "" if the connection behaves as is
// the default of the HTTP version.
func connectionOf(http10, closing bool) string {
	switch {
	case closing && !http10:
		return "\r\nConnection: close"
	case !closing && http10:
		return "\r\nConnection: keep-alive"
	}
	return ""
}

// common appends what every answer has.
func (l *lane) common(b []byte, connection string) []byte {
	b = append(b, l.signed.lines...)
	b = append(b, "\r\nDate: "...)
	b = append(b, l.server.Date()...)
	return append(b, connection...)
}

// problem appends the status and the rest of an answer with a problem document.
func (l *lane) problem(b []byte, status int, body []byte, head bool, connection string) []byte {
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\n"+headerType+": "+httpkit.ProblemType+"\r\n"+headerCaching+": no-store"...)
	b = l.common(b, connection)
	if status == http.StatusServiceUnavailable {
		b = append(b, "\r\n"+headerRetryAfter+": "+retryAfter...)
	}
	b = append(b, "\r\n"+headerLength+": "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	if !head {
		b = append(b, body...)
	}
	return b
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
