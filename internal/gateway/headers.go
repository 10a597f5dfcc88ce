package gateway

import (
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
)

// rewrite prepares the request for a reader; the balancer chooses which. Clients reach the gateway
// directly, so their statements about proxies are replaced by what the gateway observes, as APISIX
// does. Only X-Forwarded-For keeps what the client sent, before the observed address.
//
// ReverseProxy calls it after removing the headers that Connection names and most hop-by-hop ones. A
// header that readers rely on is therefore set here: a client cannot have it removed.
func rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Scheme = "http"
	pr.Out.Host = upstreamName               // HTTP/1.0 need not have a Host, and the readers want one
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy drops what it cannot parse: let the reader judge

	h := pr.Out.Header
	dropProxyHeaders(h)
	h.Del("Te")     // ReverseProxy keeps "trailers"
	h.Del("Expect") // between client and gateway, and a read has no body to wait for
	h["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
	pr.SetXForwarded()
	if host, _, err := net.SplitHostPort(pr.In.RemoteAddr); err == nil {
		h.Set("X-Real-IP", host)
	}
	if addr, ok := pr.In.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, port, err := net.SplitHostPort(addr.String()); err == nil {
			h.Set("X-Forwarded-Port", port)
		}
	}
	h.Set("X-Request-Id", pr.In.Header.Get("X-Request-Id"))
}

// cleanAnswer removes the headers of a reader's answer that are not for the client: those of proxies,
// and the reader's request id, as the answer already carries the gateway's.
func cleanAnswer(res *http.Response) error {
	dropProxyHeaders(res.Header)
	res.Header.Del("X-Request-Id")
	return nil
}

// dropProxyHeaders removes the headers by which proxies describe a request or talk to their neighbours.
func dropProxyHeaders(h http.Header) {
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Proxy-") ||
			name == "Proxy" || name == "Forwarded" || name == "X-Real-Ip"
	})
}
