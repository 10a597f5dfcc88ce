package httpkit

import (
	"net/netip"
	"strings"
)

// ValidHost reports whether a Host is empty, or a name or an address with or without a port (RFC 9112,
// section 3.2). It assumes that net/http has checked the characters.
func ValidHost(host string) bool {
	name, port, _ := strings.Cut(host, ":")
	if strings.HasPrefix(host, "[") {
		address, rest, closed := strings.Cut(host[1:], "]")
		ip, err := netip.ParseAddr(address)
		if !closed || err != nil || !ip.Is6() || ip.Zone() != "" || rest != "" && rest[0] != ':' {
			return false
		}
		name, port = "", strings.TrimPrefix(rest, ":")
	}
	return !strings.ContainsAny(name, "[]") && strings.Trim(port, "0123456789") == ""
}
