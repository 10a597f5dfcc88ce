// Command load makes what the benchmark scripts send: posts to import, ids to read, updates at a
// steady rate.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"time"

	"heavy-read-api/internal/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to make: posts, ids or updates")
	}
	flags := flag.NewFlagSet("load "+args[0], flag.ContinueOnError)
	posts := flags.Int("posts", 100_000, "number of posts")
	count := flags.Int("count", 65_536, "number of ids")
	theta := flags.Float64("theta", 0.99, "skew of the ids")
	rate := flags.Int("rate", 500, "updates a second")
	duration := flags.Duration("duration", 10*time.Second, "how long updates go on")
	url := flags.String("writer", "http://127.0.0.1:8080", "address of the writer")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "posts":
		return writePosts(out, *posts)
	case "ids":
		return writeIDs(out, *posts, *count, *theta)
	case "updates":
		return update(ctx, out, *url, *posts, *rate, *duration)
	}
	return fmt.Errorf("%q: use posts, ids or updates", args[0])
}

// writePosts writes posts as NDJSON, for /import.
func writePosts(out io.Writer, posts int) error {
	w := bufio.NewWriter(out)
	for rank := range posts {
		if err := json.NewEncoder(w).Encode(body(rank, 0)); err != nil {
			return err
		}
	}
	return w.Flush()
}

func body(rank, version int) map[string]string {
	p := workload.Post(rank, version)
	return map[string]string{"id": p.ID, "title": p.Title, "content": p.Content, "author": p.Author}
}

// writeIDs writes ids drawn from a Zipf distribution over the posts, a line each.
func writeIDs(out io.Writer, posts, count int, theta float64) error {
	w := bufio.NewWriter(out)
	z := workload.NewZipf(1, posts, theta)
	for range count {
		fmt.Fprintln(w, workload.ID(z.Next()))
	}
	return w.Flush()
}

// update writes posts at a steady rate. A write that is due while another one takes its time is
// late, not skipped. A write that fails ends it with an error.
func update(ctx context.Context, out io.Writer, url string, posts, rate int, duration time.Duration) error {
	client := &http.Client{Timeout: 5 * time.Second}
	z := workload.NewZipf(2, posts, 0.99)
	began := time.Now()
	n := 0
	for ; time.Since(began) < duration; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(rate)))):
		}
		content, err := json.Marshal(body(z.Next(), n+1))
		if err != nil {
			return err
		}
		res, err := client.Post(url+"/create", "application/json", bytes.NewReader(content))
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
			return fmt.Errorf("POST /create answered %s", res.Status)
		}
	}
	fmt.Fprintf(out, "%d updates in %.1f s\n", n, time.Since(began).Seconds())
	return nil
}
