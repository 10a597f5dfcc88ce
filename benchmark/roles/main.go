// Command roles runs one of the servers that the benchmark starts for itself: the writer, a reader, the
// gateway that stands in for APISIX, or net/http with a fixed response. It links nothing else, so that its
// memory use is that of the server.
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/writer"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		args = []string{""}
	}
	switch role, args := args[0], args[1:]; role {
	case "writer":
		return daemon.Main(args, os.Getenv, os.Stderr, writer.ParseConfig, writer.Run)
	case "reader":
		return daemon.Main(args, os.Getenv, os.Stderr, reader.ParseConfig, reader.Run)
	case "gateway":
		return daemon.Main(args, os.Getenv, os.Stderr, gateway.ParseConfig, gateway.Run)
	case "nethttp":
		fmt.Fprintln(os.Stderr, "error:", serve())
		return 1
	default:
		fmt.Fprintf(os.Stderr, "error: unknown role %q: use writer, reader, gateway or nethttp\n", role)
		return 2
	}
}

// serve answers every request with the body and headers that the environment contains, as a plain net/http
// server would serve a post that is encoded already.
func serve() error {
	body := []byte(os.Getenv("BODY"))
	header := map[string][]string{
		"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(body))}, "Cache-Control": {"no-cache"},
		"X-Served-By": {"nethttp"}, "Etag": {os.Getenv("ETAG")}, "X-Version": {os.Getenv("VERSION")},
	}
	return http.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for name, value := range header {
			h[name] = value
		}
		_, _ = w.Write(body)
	}))
}
