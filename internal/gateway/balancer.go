package gateway

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	requestTimeout = 30 * time.Second // timeout of a whole exchange
	retries        = 2                // additional tries, each on another reader
	retryTimeout   = 3 * time.Second  // no retry starts after that
)

var errNoReader = errors.New("no reader is listed")

// exchange is a request to the readers and its answer. One goroutine uses it at a time.
type exchange struct {
	message    []byte // request as it is sent to the reader
	head       bool   // the method is HEAD, so the answer has no body
	repeatable bool   // the request may be sent to more than one reader

	// stream is set for a request whose answer takes as long as the client wants: it ends the exchange.
	stream context.Context

	start    time.Time
	node     *node         // reader of the last try; nil if there was none
	upstream time.Duration // time spent waiting for readers, all tries together
	answer   answer
}

// balancer sends each request to the next reader, and to others when that fails.
type balancer struct {
	nodes *nodes
	try   func(*node, *exchange) error // sends the request and reads the header of the answer
}

// send sends x to readers until one answers. A try fails if no complete, valid header is received. Nothing has been sent to
// the client by then, so a read can be retried.
func (b *balancer) send(x *exchange) error {
	var room [1 + retries]*node
	tried := room[:0]
	err := errNoReader
	for range cap(tried) {
		n := b.nodes.pick(tried)
		if n == nil {
			break
		}
		x.node = n
		err = b.try(n, x)
		x.upstream = time.Since(x.start)
		if err == nil {
			n.answered()
			break
		}
		b.nodes.missed(n, err)
		if !x.repeatable || x.upstream >= retryTimeout {
			break
		}
		tried = append(tried, n)
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error // context.DeadlineExceeded is one too
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isShortage reports whether err means that this process or machine is out of files, ports or memory. Such an error says
// nothing about the health of the reader.
func isShortage(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
