package reader

import (
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// waitingRead is a read that waits at least 100 ms for a version that does not exist.
func (l *lanes) waitingRead() string {
	future := l.token
	future.Version += 1000
	return "GET /post?id=a HTTP/1.1\r\nHost: a\r\nX-Min-Version: " + future.String() + "\r\n\r\n"
}

// Pipelined reads of a client that is gone are not served: each could wait for the whole budget.
func TestAGoneClientIsNotServed(t *testing.T) {
	l := newLanes(t)
	c := newScript([]byte(strings.Repeat(l.waitingRead(), 8)))
	c.broken = syscall.EPIPE
	l.fast <- c
	c.wait(t)
	if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "503")); got != 1 {
		t.Errorf("%v reads were served, want 1: the write before the second one fails", got)
	}
}
