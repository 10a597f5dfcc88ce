// Command reads reads one URL at a steady rate until it is interrupted, and fails when any read was
// not answered with 200: the load under which the test of the Docker stack breaks things.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:9080/post?id=hello", "what to read")
	clients := flag.Int("clients", 8, "connections")
	rate := flag.Int("rate", 400, "reads a second, of all clients together")
	most := flag.Duration("for", 5*time.Minute, "when to end at the latest")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *most)
	defer cancel()
	if err := run(ctx, os.Stdout, *url, *clients, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, url string, clients, rate int) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	var (
		mu     sync.Mutex // guards what follows
		reads  int
		failed int
		first  error
	)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			tick := time.NewTicker(time.Duration(clients) * time.Second / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				err := read(client, url) // without ctx: a read that was cut says nothing
				mu.Lock()
				reads++
				if err != nil {
					failed++
					if first == nil {
						first = err
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	fmt.Fprintf(out, "%d reads, %d failed\n", reads, failed)
	if reads == 0 {
		return errors.New("nothing was read")
	}
	return first
}

func read(client *http.Client, url string) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", res.Header.Get("X-Served-By"), err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %.200s", res.Header.Get("X-Served-By"), res.Status, body)
	}
	return nil
}
