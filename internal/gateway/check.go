package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// newcomerRate is the factor by which a reader that has never been ready is checked more often, so that
// it joins soon after its start.
const newcomerRate = 10

// checker asks readers whether they are ready.
type checker struct {
	ask      func(ctx context.Context, addr string) error // nil when the reader there is ready
	interval time.Duration
	report   func(*node, error) (ready bool)
}

// newChecker returns a checker that asks at each interval. report takes the result of a check and
// returns whether the node counts as ready now.
func newChecker(interval, timeout time.Duration, report func(*node, error) (ready bool)) *checker {
	client := &http.Client{
		Timeout: timeout,
		// A connection of its own for each check: one that was kept would not show that the
		// reader no longer accepts any.
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			DisableCompression:     true,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &checker{
		ask:      func(ctx context.Context, addr string) error { return askReady(ctx, client, addr) },
		interval: interval,
		report:   report,
	}
}

// run checks n at once and then at each interval, until ctx is done.
func (c *checker) run(ctx context.Context, n *node) {
	tick := time.NewTicker(c.interval / newcomerRate)
	defer tick.Stop()
	newcomer := true
	for {
		began := time.Now()
		err := c.ask(ctx, n.addr)
		n.pool.expire(began.Add(-idleTimeout))
		if ctx.Err() != nil {
			return // a check that was cut says nothing about the reader
		}
		// Where clients keep all processors busy a check may be late although the reader answers: then
		// it says nothing about the reader.
		if late := isTimeout(err) && n.answeredSince(began); !late && c.report(n, err) && newcomer {
			newcomer = false
			tick.Reset(c.interval)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func askReady(ctx context.Context, client *http.Client, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/ready", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /ready answered %s", res.Status)
	}
	return nil
}
