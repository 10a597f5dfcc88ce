package gateway

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	requestTimeout = 30 * time.Second // bound of a whole exchange
	retries        = 2                // tries after the first, each on another reader
	retryTimeout   = 3 * time.Second  // after which no further try begins
)

var errNoReader = errors.New("no reader is listed")

// exchange is a request to the readers and its answer. One goroutine uses it at a time.
type exchange struct {
	message    []byte // the request as the reader gets it
	head       bool   // HEAD: the answer has no body
	repeatable bool   // a second try cannot do anything twice

	start    time.Time
	node     *node         // the reader that was tried last, nil when there was none
	upstream time.Duration // spent waiting for readers, all tries together
	answer   answer
}

// balancer sends each request to the next reader, and to others when that fails.
type balancer struct {
	nodes *nodes
	try   func(*node, *exchange) error // sends the request and reads the header of the answer
}

// send has x answered. A try fails when no whole header of an answer came; until then nothing has reached the
// client, so a read can be repeated.
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

// isShortage reports whether err says that this process, or this machine, lacks what a connection needs: files,
// ports or memory. That says nothing about the reader.
func isShortage(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
