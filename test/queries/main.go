// Command queries runs every query of the dashboards and rules on a Prometheus that scrapes the stack. It fails when a
// query returns no data or names a metric that no process exports.
//
//	go run ./test/queries -prometheus http://127.0.0.1:9090 -wait 90s
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// pause is the time between two attempts at the queries that returned no data.
const pause = time.Second

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("queries", flag.ContinueOnError)
	url := flags.String("prometheus", "http://127.0.0.1:9090", "address of Prometheus")
	root := flags.String("root", ".", "folder with grafana/ and prometheus/")
	wait := flags.Duration("wait", 90*time.Second, "how long to wait for data: rates need a minute of scrapes, and some reads and writes")
	optional := flags.String("optional", "redis_(master_link_up|master_last_io_seconds_ago|connected_slave_offset_bytes|sentinel_master_ckquorum_status)",
		"regular expression of metrics that may be missing; by default those of Redis replicas and Sentinels, which a single Redis does not have")
	if err := flags.Parse(args); err != nil {
		return err
	}
	optionalMetrics, err := regexp.Compile("^(?:" + *optional + ")$")
	if err != nil {
		return fmt.Errorf("-optional: %w", err)
	}
	open, err := collect(*root)
	if err != nil {
		return err
	}
	total := len(open)
	ctx, cancel := context.WithTimeout(ctx, *wait+requestTimeout)
	defer cancel()
	p := prometheus{url: *url, optional: optionalMetrics}
	for deadline := time.Now().Add(*wait); ; {
		known, err := p.names(ctx)
		if err != nil {
			return err
		}
		open = slices.DeleteFunc(open, func(q *query) bool {
			q.missing = p.check(ctx, q, known)
			return q.missing == nil
		})
		if len(open) == 0 {
			fmt.Fprintf(out, "%d queries of dashboards and rules have data\n", total)
			return nil
		}
		if !time.Now().Before(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	for _, q := range open {
		fmt.Fprintf(out, "%s: %v\n    %s\n", q.from, q.missing, q.expr)
	}
	return fmt.Errorf("%d of %d queries have no data after %v", len(open), total, *wait)
}
