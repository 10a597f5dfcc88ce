package writer

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"heavy-read-api/internal/httpkit"
)

// originGuard refuses writes that a web page sends through its visitor's browser. A page of another
// origin is recognized by Sec-Fetch-Site or Origin; one whose own name was made to resolve to this
// writer (DNS rebinding) has the right Origin and is recognized by its Host.
type originGuard struct {
	crossOrigin *http.CrossOriginProtection
	anyHost     bool     // a page that was rebound does not have the writer's token
	hosts       []string // names in Host besides those that no page on the web can have
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
				Detail: "a web page of another origin may not write: send the request from a program, or from a page that this host serves",
			}.WriteTo(w)
			return
		}
		if !g.anyHost && !g.serves(r.Host) {
			httpkit.Problem{
				Status: http.StatusMisdirectedRequest,
				Field:  "Host",
				Detail: "without a WRITER_TOKEN the writer takes writes by address, localhost or a name without a dot: use one of these, or add the name to ALLOWED_HOSTS",
			}.WriteTo(w)
			return
		}
		next(w, r)
	}
}

// serves reports whether a Host header names the writer. The port is free: it may be a mapped one.
// HTTP/1.0 needs no Host, and no browser sends it.
func (g *originGuard) serves(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	host = strings.ToLower(host)
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	host = strings.TrimSuffix(host, ".") // which a name without another dot may not have: it is a top-level domain
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(g.hosts, host)
}
