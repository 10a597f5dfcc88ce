// Command load makes what the benchmark scripts send: posts to import, ids to read, updates at a
// steady rate, idle connections; and what a reader's load is compared with, a bare scan of Redis. It
// also waits for a reader.
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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/internal/post"
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
		return fmt.Errorf("say what to make: posts, ids, updates, idle, scan or ready")
	}
	flags := flag.NewFlagSet("load "+args[0], flag.ContinueOnError)
	posts := flags.Int("posts", 100_000, "number of posts")
	count := flags.Int("count", 65_536, "number of ids")
	theta := flags.Float64("theta", 0.99, "skew of the ids")
	rate := flags.Int("rate", 500, "updates a second")
	duration := flags.Duration("duration", 10*time.Second, "how long updates go on")
	url := flags.String("writer", "http://127.0.0.1:8080", "address of the writer")
	bulk := flags.Bool("bulk", false, "send the updates as lines of one import")
	reader := flags.String("reader", "127.0.0.1:8081", "address of the reader that idle connects to and ready waits for")
	connections := flags.Int("connections", 10_000, "idle connections")
	redisAddr := flags.String("redis", "127.0.0.1:6379", "address of the Redis that is scanned")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "posts":
		return writePosts(out, *posts)
	case "ids":
		return writeIDs(out, *posts, *count, *theta)
	case "idle":
		return idle(ctx, out, *reader, *connections, *duration)
	case "scan":
		return scan(ctx, out, *redisAddr)
	case "ready":
		return ready(ctx, *reader)
	case "updates":
		if *bulk {
			return updateInBulk(ctx, out, *url, *posts, *rate, *duration)
		}
		return update(ctx, out, *url, *posts, *rate, *duration)
	}
	return fmt.Errorf("%q: use posts, ids, updates, idle, scan or ready", args[0])
}

// writePosts writes posts as NDJSON, for /import.
func writePosts(out io.Writer, posts int) error {
	w := bufio.NewWriter(out)
	for rank := range posts {
		line, err := workload.AppendLine(w.AvailableBuffer(), workload.Post(rank, 0))
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Flush()
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

// updaters is how many updates may be under way at a time: a write takes as long as the disk of Redis.
const updaters = 16

// update writes posts at a steady rate. A write that is due while all updaters are busy is late, not
// skipped. A write that fails ends it with an error.
func update(ctx context.Context, out io.Writer, url string, posts, rate int, duration time.Duration) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: updaters}}
	var mu sync.Mutex // guards z and n
	z, n := workload.NewZipf(2, posts, 0.99), 0
	began := time.Now()
	writers, ctx := errgroup.WithContext(ctx)
	for range updaters {
		writers.Go(func() error {
			for {
				mu.Lock()
				rank, due := z.Next(), time.Duration(n)*time.Second/time.Duration(rate)
				if time.Since(began) >= duration || due >= duration {
					mu.Unlock()
					return nil
				}
				n++
				content := workload.Post(rank, n)
				mu.Unlock()
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Until(began.Add(due))):
				}
				if err := send(client, url, content); err != nil {
					return err
				}
			}
		})
	}
	if err := writers.Wait(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d updates in %.1f s\n", n, time.Since(began).Seconds())
	return err
}

func send(client *http.Client, url string, p post.Post) error {
	content, err := workload.AppendLine(nil, p)
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
	return nil
}

// updateInBulk is update for rates that are too high for a request a post: the posts are the lines of
// one import, each sent when it is due, and the writer makes commits of what has arrived.
func updateInBulk(ctx context.Context, out io.Writer, url string, posts, rate int, duration time.Duration) error {
	lines, feed := io.Pipe()
	z := workload.NewZipf(2, posts, 0.99)
	began := time.Now()
	n := 0
	go func() {
		for ; time.Since(began) < duration && ctx.Err() == nil; n++ {
			time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(rate))))
			line, err := workload.AppendLine(nil, workload.Post(z.Next(), n+1))
			if err != nil {
				_ = feed.CloseWithError(err)
				return
			}
			if _, err := feed.Write(line); err != nil {
				break // the request has ended
			}
		}
		_ = feed.Close()
	}()
	res, err := http.Post(url+"/import", "application/x-ndjson", lines)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer bytes.Buffer // the last line is the summary
	for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
		answer.Reset()
		answer.Write(scanner.Bytes())
	}
	var summary struct {
		Status  string
		Written int
	}
	if err := json.Unmarshal(answer.Bytes(), &summary); err != nil || summary.Status != "done" || summary.Written != n {
		return fmt.Errorf("%d updates were sent, the import ended with %s", n, answer.String())
	}
	fmt.Fprintf(out, "%d updates in %.1f s\n", n, time.Since(began).Seconds())
	return nil
}
