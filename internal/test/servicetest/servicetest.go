// Package servicetest runs a service in the process of a test and speaks to it over HTTP.
package servicetest

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

// Instance is a service that runs.
type Instance struct {
	URL  string
	Stop context.CancelFunc // as SIGTERM does
	Done chan error         // has the result of Run; closed after it
}

// Start has run serve until the test ends or Stop is called. run must call listening once, with the
// address that it serves on; Start waits for that.
func Start(t testing.TB, run func(ctx context.Context, listening func(addr string)) error) *Instance {
	t.Helper()
	addr := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	i := &Instance{Stop: cancel, Done: make(chan error, 1)}
	go func() {
		defer close(i.Done)
		i.Done <- run(ctx, func(a string) { addr <- a })
	}()
	t.Cleanup(func() {
		cancel()
		for err := range i.Done {
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
	select {
	case a := <-addr:
		i.URL = "http://" + a
	case err := <-i.Done:
		t.Fatalf("Run: %v", err)
	}
	return i
}

// Client sends requests as they are and opens a connection for each.
var Client = &http.Client{
	Timeout:   60 * time.Second,
	Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true},
}

// Send sends a request and returns the answer with its body; header has names and values in turn. A body
// is JSON where header does not have another Content-Type; "" sends none.
func (i *Instance) Send(t testing.TB, method, target string, body io.Reader, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, i.URL+target, body)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost || method == http.MethodPut {
		req.Header.Set("Content-Type", "application/json")
	}
	for n := 0; n < len(header); n += 2 {
		switch header[n] {
		case "Content-Type":
			req.Header.Del("Content-Type")
			if header[n+1] != "" {
				req.Header.Set("Content-Type", header[n+1])
			}
		case "Host":
			req.Host = header[n+1]
		default:
			req.Header.Add(header[n], header[n+1])
		}
	}
	res, err := Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, content
}
