// Command writes writes posts at a steady rate until it is interrupted, says how long no write was
// acknowledged, and lists those that were: the load under which the test of the Docker stack replaces
// the primary of Redis.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	w := writes{client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	flag.StringVar(&w.url, "url", "http://127.0.0.1:8080", "address of the writer")
	flag.StringVar(&w.prefix, "prefix", "written-", "what the ids begin with")
	rate := flag.Int("rate", 100, "writes a second")
	most := flag.Duration("for", 5*time.Minute, "when to end at the latest")
	list := flag.String("acknowledged", "acknowledged", "file for the ids of the posts that were acknowledged")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *most)
	defer cancel()
	w.run(ctx, time.Second/time.Duration(*rate))
	fmt.Println(&w)
	if err := os.WriteFile(*list, []byte(strings.Join(w.ids, "\n")+"\n"), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// maxInFlight bounds the writes that wait for an answer. While all of them do, none is sent.
const maxInFlight = 200

type writes struct {
	client *http.Client
	url    string
	prefix string

	mu       sync.Mutex // guards what follows
	ids      []string   // of the posts that were acknowledged
	last     time.Time  // acknowledgement
	pause    time.Duration
	failures map[string]int // by answer
}

func (w *writes) String() string {
	text := fmt.Sprintf("%d writes acknowledged, none for %.1f s", len(w.ids), w.pause.Seconds())
	for answer, n := range w.failures {
		text += fmt.Sprintf("\n%d times %s", n, answer)
	}
	return text
}

// run writes a post each period until ctx is done, and blocks until the last one is answered.
func (w *writes) run(ctx context.Context, period time.Duration) {
	w.failures = make(map[string]int)
	w.last = time.Now()
	tick := time.NewTicker(period)
	defer tick.Stop()
	var all sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			all.Wait()
			w.acknowledge() // the pause may last until the end
			return
		case <-tick.C:
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprint(w.prefix, n)
			if answer := w.write(id); answer != "" {
				w.mu.Lock()
				w.failures[answer]++
				w.mu.Unlock()
				return
			}
			w.acknowledge(id)
		})
	}
}

func (w *writes) acknowledge(ids ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.pause = max(w.pause, now.Sub(w.last))
	w.last = now
	w.ids = append(w.ids, ids...)
}

// write returns the answer to a write that failed, "" for one that was acknowledged.
func (w *writes) write(id string) string {
	res, err := w.client.Post(w.url+"/create", "application/json", strings.NewReader(`{"id":"`+id+`","title":"t","content":"c"}`))
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	if res.StatusCode != http.StatusCreated {
		return fmt.Sprintf("%s: %.300s", res.Status, body)
	}
	return ""
}
