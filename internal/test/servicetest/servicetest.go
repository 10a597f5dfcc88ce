// Package servicetest runs a service in the test's process and sends HTTP requests to it.
package servicetest

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

// Instance is a running service.
type Instance struct {
	URL  string
	Stop context.CancelFunc // begins an orderly stop, as SIGTERM does
	Done chan error         // receives the result of run, then is closed
}

// Start starts run in a goroutine and cancels its context when the test ends or Stop is called. run must
// call listening once, with the address that it serves on; Start blocks until then.
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

// Client sends requests without adding Accept-Encoding, and opens a new connection for each.
var Client = &http.Client{
	Timeout:   60 * time.Second,
	Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true},
}

// Send sends a request and returns the response, whose body is read and closed, and the body. header
// alternates names and values. POST and PUT have the Content-Type application/json unless header has another
// one; an empty one omits the header.
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
