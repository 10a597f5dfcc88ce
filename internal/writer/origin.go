package writer

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"heavy-read-api/internal/httpkit"
)

// originGuard refuses writes that a foreign web page sends through the browser of a visitor. A cross-origin request is
// detected by Sec-Fetch-Site or Origin. With DNS rebinding, the page's own name resolves to this writer: its requests
// are same-origin and are detected by their Host.
type originGuard struct {
	crossOrigin *http.CrossOriginProtection
	anyHost     bool     // writes require a token, which a rebound page does not have, so Host is not checked
	hosts       []string // names that are accepted besides addresses, localhost and names without a dot
}

func newOriginGuard(token string, hosts []string) *originGuard {
	return &originGuard{crossOrigin: http.NewCrossOriginProtection(), anyHost: token != "", hosts: hosts}
}

func (g *originGuard) guard(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if g.crossOrigin.Check(r) != nil {
			httpkit.Problem{
				Status: http.StatusForbidden,
				Field:  "Origin",
				Detail: "cross-origin writes are refused: send the request from a program, or from a web page that this host serves",
			}.WriteTo(w)
			return
		}
		if !g.anyHost && !g.serves(r.Host) {
			httpkit.Problem{
				Status: http.StatusMisdirectedRequest,
				Field:  "Host",
				Detail: "without a WRITER_TOKEN the writer accepts writes only if Host is an address, localhost or a name without a dot: use one of these, or add the name to ALLOWED_HOSTS",
			}.WriteTo(w)
			return
		}
		next(w, r)
	}
}

// serves reports whether a Host header is accepted. It ignores the port, which may be a mapped one. An empty Host is
// accepted: only HTTP/1.0 allows it, and browsers do not use that version.
func (g *originGuard) serves(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	host = strings.ToLower(host)
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	// Only now, because a trailing dot makes a name without another dot a top-level domain, which a page may have.
	host = strings.TrimSuffix(host, ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(g.hosts, host)
}
