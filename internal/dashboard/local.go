package dashboard

import (
	"net"
	"net/http"

	"heavy-read-api/internal/httpkit"
)

// LocalOnly passes only requests of this machine's own pages and tools. The listener is on the loopback interface,
// but a browser on this machine also runs pages of other sites: a cross-origin request is recognized by its Origin,
// and a site whose name resolves to 127.0.0.1 (DNS rebinding) by its Host.
func LocalOnly(h http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httpkit.Problem{Status: http.StatusForbidden, Detail: "a page of another origin may not send this request"}.WriteTo(w)
	}))
	sameOrigin := guard.Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			httpkit.Problem{Status: http.StatusForbidden, Detail: "use http://localhost: this page answers only requests to its own machine"}.WriteTo(w)
			return
		}
		sameOrigin.ServeHTTP(w, r)
	})
}

// localHost reports whether a Host header names this machine. Any port is accepted, because an SSH tunnel may change it.
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
