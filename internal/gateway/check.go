package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// checker asks readers whether they are ready.
type checker struct {
	client   *http.Client
	interval time.Duration
	report   func(*node, error)
}

func newChecker(interval, timeout time.Duration, report func(*node, error)) *checker {
	return &checker{
		client: &http.Client{
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
		},
		interval: interval,
		report:   report,
	}
}

// run checks n at once and then at each interval, until ctx is done.
func (c *checker) run(ctx context.Context, n *node) {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		err := c.ask(ctx, n.addr)
		if ctx.Err() != nil {
			return // a check that was cut says nothing about the reader
		}
		c.report(n, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *checker) ask(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/ready", nil)
	if err != nil {
		return err
	}
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /ready answered %s", res.Status)
	}
	return nil
}
