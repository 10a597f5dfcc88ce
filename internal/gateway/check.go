package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// newcomerRate divides the check interval of a reader that has never been ready, so that it joins the rotation soon
// after its start.
const newcomerRate = 10

// checker runs the active health checks.
type checker struct {
	probe    func(ctx context.Context, addr string) error // returns nil if the reader at addr is ready
	interval time.Duration
	report   func(*node, error) (ready bool)
}

// newChecker returns a checker that checks each reader once per interval. report records the result of a check and
// returns whether the node is in rotation afterwards.
func newChecker(interval, timeout time.Duration, report func(*node, error) (ready bool)) *checker {
	client := &http.Client{
		Timeout: timeout,
		// Each check opens a new connection: a kept-alive one would still work after the reader has stopped accepting.
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			DisableCompression:     true,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &checker{
		probe:    func(ctx context.Context, addr string) error { return probeReady(ctx, client, addr) },
		interval: interval,
		report:   report,
	}
}

// run checks n immediately and then once per interval until ctx is done. It also closes n's expired idle connections.
func (c *checker) run(ctx context.Context, n *node) {
	tick := time.NewTicker(c.interval / newcomerRate)
	defer tick.Stop()
	newcomer := true
	for {
		began := time.Now()
		err := c.probe(ctx, n.addr)
		n.pool.expire(began.Add(-idleTimeout))
		if ctx.Err() != nil {
			return // the check was canceled, so its result is meaningless
		}
		// When clients keep every CPU busy, a check can time out although the reader still answers requests.
		// Such a timeout is ignored.
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

func probeReady(ctx context.Context, client *http.Client, addr string) error {
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
