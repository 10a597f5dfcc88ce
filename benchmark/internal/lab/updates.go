package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// updaters is the maximum number of updates in flight.
const updaters = 16

// Updates describes updates of existing posts at a constant rate, with ids from a Zipf distribution.
type Updates struct {
	Writer   string // host:port
	Posts    int    // number of posts
	Rate     int    // updates per second
	Duration time.Duration
}

// Run sends each update in a request of its own. An update that is due while all connections are in use is sent
// late, not skipped. Run returns the number of updates; an update that fails is an error.
func (u Updates) Run(ctx context.Context) (int, error) {
	var mu sync.Mutex // guards z and n
	z, n := workload.NewZipf(2, u.Posts, load.Theta), 0
	began := time.Now()
	writers, ctx := errgroup.WithContext(ctx)
	for range updaters {
		writers.Go(func() error {
			conn, err := wire.Dial(ctx, u.Writer)
			if err != nil {
				return err
			}
			defer conn.Close()
			for {
				mu.Lock()
				due := time.Duration(n) * time.Second / time.Duration(u.Rate)
				if time.Since(began) >= u.Duration || due >= u.Duration {
					mu.Unlock()
					return nil
				}
				n++
				p := workload.Post(z.Next(), n)
				mu.Unlock()
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(time.Until(began.Add(due))):
				}
				body, err := workload.AppendLine(nil, p)
				if err != nil {
					return err
				}
				a, err := conn.Post("/create", "", body)
				if err != nil {
					return fmt.Errorf("POST /create: %w", err)
				}
				if a.Status != http.StatusOK && a.Status != http.StatusCreated {
					return fmt.Errorf("POST /create returned %d: %.200s", a.Status, a.Body)
				}
			}
		})
	}
	err := writers.Wait()
	return n, err
}

// RunBulk sends the updates as lines of one import, for rates that are too high for one request per update. Each
// line is sent when it is due, and the writer commits the lines in batches.
func (u Updates) RunBulk(ctx context.Context) (int, error) {
	lines, feed := io.Pipe()
	sent := make(chan int, 1)
	go func() {
		z := workload.NewZipf(2, u.Posts, load.Theta)
		n := 0
		var line []byte
		for began := time.Now(); time.Since(began) < u.Duration && ctx.Err() == nil; n++ {
			due := time.Duration(n) * time.Second / time.Duration(u.Rate)
			if due >= u.Duration {
				break
			}
			time.Sleep(time.Until(began.Add(due)))
			var err error
			if line, err = workload.AppendLine(line[:0], workload.Post(z.Next(), n+1)); err == nil {
				_, err = feed.Write(line)
			}
			if err != nil {
				_ = feed.CloseWithError(err)
				break
			}
		}
		_ = feed.Close()
		sent <- n
	}()
	written, err := Import(ctx, u.Writer, "", lines)
	_ = lines.Close() // unblocks the goroutine when the request has failed
	n := <-sent
	if err == nil && written != n {
		err = fmt.Errorf("%d updates were sent, but the import wrote %d", n, written)
	}
	return n, err
}

// Import sends lines to the import of a writer and returns the number of posts that it wrote.
func Import(ctx context.Context, writer, token string, lines io.Reader) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+writer+"/import", lines)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := target.Client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	all := bytes.Split(bytes.TrimSpace(answer), []byte("\n"))
	var summary struct {
		Status  string
		Written int
	}
	err = json.Unmarshal(all[len(all)-1], &summary) // the last line is the summary
	if err == nil && (res.StatusCode != http.StatusOK || summary.Status != "done") {
		err = errors.New("it did not end with the status done")
	}
	if err != nil {
		return summary.Written, fmt.Errorf("import: %w: the writer returned %s: %.500s", err, res.Status, answer)
	}
	return summary.Written, nil
}
