package gateway

import (
	"errors"
	"net"
	"net/http"
	"time"
)

const (
	maxResponseHeader = 64 << 10         // bytes
	idleConnsPerNode  = 320              // as APISIX keeps them
	idleTimeout       = 60 * time.Second // below the readers' 75 s: who closes first cannot meet a request
	retries           = 2                // tries after the first, each on another reader
	retryTimeout      = 3 * time.Second  // after which no further try begins
)

var errNoReader = errors.New("no reader is listed")

// exchange is what the balancer tells the handler about a request. One goroutine uses it at a time.
type exchange struct {
	node     string        // the reader tried last, "" when there was none
	upstream time.Duration // spent waiting for readers, all tries together
}

type exchangeKey struct{}

// balancer sends each request to the next reader, and to others when that failed.
type balancer struct {
	nodes *nodes
	next  http.RoundTripper
}

func newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout:  timeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		MaxIdleConnsPerHost:    idleConnsPerNode,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true, // bodies and their Content-Length pass as they are
	}
}

// RoundTrip implements http.RoundTripper. A try fails when no whole response header came; until
// then nothing has reached the client, so a read can be repeated. A request that used a kept
// connection just as the reader closed it is repeated by http.Transport itself.
func (b *balancer) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		x = new(exchange)
	}
	start := time.Now()
	defer func() { x.upstream = time.Since(start) }()

	tried := make([]*node, 0, 1+retries)
	err := errNoReader
	for range 1 + retries {
		n := b.nodes.pick(tried)
		if n == nil {
			break
		}
		var res *http.Response
		if res, err = b.try(req, n, x); err == nil {
			return res, nil
		}
		if req.Context().Err() != nil || !repeatable(req) || time.Since(start) >= retryTimeout {
			break
		}
		tried = append(tried, n)
	}
	return nil, err
}

// try sends req to n and tells the list of nodes how n did.
func (b *balancer) try(req *http.Request, n *node, x *exchange) (*http.Response, error) {
	x.node = n.addr
	u := *req.URL
	u.Host = n.addr
	out := req.WithContext(req.Context()) // a copy: the transport may still hold that of an earlier try
	out.URL = &u
	res, err := b.next.RoundTrip(out)
	switch {
	case err == nil:
		n.answered()
		// APISIX drops trailers. The body stores them in the original response, so a copy has none.
		answer := *res
		answer.Trailer = nil
		res = &answer
	case req.Context().Err() == nil: // else the time of the whole request is over
		b.nodes.missed(n, err)
	}
	return res, err
}

// repeatable reports whether a second try cannot do anything twice.
func repeatable(req *http.Request) bool {
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) &&
		(req.Body == nil || req.Body == http.NoBody)
}

func isTimeout(err error) bool {
	var timeout net.Error // context.DeadlineExceeded is one too
	return errors.As(err, &timeout) && timeout.Timeout()
}
