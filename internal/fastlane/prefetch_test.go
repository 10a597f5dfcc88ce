package fastlane

import (
	"bufio"
	"fmt"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// ahead is an echo that records for which bytes it was asked to prepare.
type ahead struct {
	*echo
	ask  int // bytes that it looks at
	seen []string
}

func (a *ahead) Prefetch(b []byte) int {
	a.seen = append(a.seen, string(b))
	return min(a.ask, len(b))
}

// Prefetch gets the requests that follow the current one, and again when those that it has looked at are served.
func TestPrefetchOfPipelinedRequests(t *testing.T) {
	request := get("1")
	handlers := make(chan *ahead, 1)
	f := start(t, func(c *Config) {
		create := c.Handler
		c.Handler = func() Handler {
			h := &ahead{echo: create().(*echo), ask: 2*len(request) - 1}
			handlers <- h
			return h
		}
	})
	c := dial(t, f)
	r := bufio.NewReader(c)
	for _, n := range []int{1, 5} {
		send(t, c, strings.Repeat(request, n))
		for range n {
			expect(t, r, "fast", "post 1")
		}
	}
	h := <-handlers
	eventually.True(t, "the answers are flushed", func() bool { return f.requests.Load() == 6 })
	var lengths []int
	for _, b := range h.seen {
		lengths = append(lengths, len(b)/len(request))
	}
	if want := "[4 2]"; fmt.Sprint(lengths) != want {
		t.Errorf("it was called before %v requests, want %s", lengths, want)
	}
}
