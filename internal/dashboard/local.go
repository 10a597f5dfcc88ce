package dashboard

import (
	"net"
	"net/http"

	"heavy-read-api/internal/httpkit"
)

// LocalOnly lets through what comes from this machine's own pages and tools alone. The listener is
// on the loopback, but a browser here brings other people's pages there too: one that posts across
// origins is told by its Origin, and one whose own name was made to point to 127.0.0.1 (DNS
// rebinding) by its Host.
func LocalOnly(h http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httpkit.Problem{Status: http.StatusForbidden, Detail: "a page of another origin may not do this"}.WriteTo(w)
	}))
	sameOrigin := guard.Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			httpkit.Problem{Status: http.StatusForbidden, Detail: "use http://localhost: this is for the machine itself"}.WriteTo(w)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

// localHost reports whether a Host header names this machine. The port is free, because an SSH
// tunnel may have changed it.
func localHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	switch host {
	case "localhost", "127.0.0.1", "::1", "[::1]":
		return true
	}
	return false
}
