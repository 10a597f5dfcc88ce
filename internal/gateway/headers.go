package gateway

import (
	"bytes"
	"errors"
	"slices"

	"heavy-read-api/internal/httpkit"
)

// header is a parsed header section: the fields to forward, and those that concern only the connection that it was
// received on. host and requestID are parts of the parsed bytes.
type header struct {
	kept         []byte // lines of the fields to forward, each with its CRLF
	host         []byte
	requestID    []byte // first X-Request-Id, nil without one
	forwardedFor []byte // all values of X-Forwarded-For, joined
	length       int64  // Content-Length, -1 without one
	chunked      bool   // Transfer-Encoding: chunked
	close        bool   // Connection: close
	keepAlive    bool   // Connection: keep-alive
	dated        bool   // kept has a Date

	named [][]byte // other options of Connection, which name hop-by-hop fields
}

var (
	errMalformedField = errors.New("a header field is malformed")
	errAmbiguousBody  = errors.New("the length of the body is ambiguous")
)

// read parses lines, each of which ends with CRLF. Fields that describe proxies, such as Forwarded and X-Real-IP, are
// dropped, because the gateway sets them itself, as APISIX does. Fields that Connection names are dropped as well. A client
// cannot use that to remove a field that the gateway sets, because those are added afterwards.
func (h *header) read(lines []byte) error {
	*h = header{kept: h.kept[:0], forwardedFor: h.forwardedFor[:0], named: h.named[:0], length: -1}
	for len(lines) > 0 {
		end := bytes.Index(lines, crlf)
		colon := bytes.IndexByte(lines, ':')
		if end < 0 || colon < 0 || colon > end || !isToken(lines[:colon]) || !isText(lines[colon+1:end]) {
			return errMalformedField
		}
		line := lines[:end+len(crlf)]
		lines = lines[len(line):]
		name, value := line[:colon], bytes.Trim(line[colon+1:end], " \t")
		switch meaningOf(name) {
		case endToEnd:
			h.kept = append(h.kept, line...)
		case date:
			h.kept, h.dated = append(h.kept, line...), true
		case host:
			h.host = value
		case requestID:
			if h.requestID == nil {
				h.requestID = value
			}
		case forwardedFor:
			if len(h.forwardedFor) > 0 {
				h.forwardedFor = append(h.forwardedFor, ", "...)
			}
			h.forwardedFor = append(h.forwardedFor, value...)
		case connection:
			h.readOptions(value)
		case contentLength:
			n, ok := httpkit.ParseLength(value)
			if !ok || h.length >= 0 && h.length != n {
				return errAmbiguousBody
			}
			h.length = n
		case transferEncoding:
			if h.chunked || !bytes.EqualFold(value, []byte("chunked")) {
				return errAmbiguousBody
			}
			h.chunked = true
		case hopByHop:
		}
	}
	if h.chunked && h.length >= 0 {
		return errAmbiguousBody
	}
	if len(h.named) > 0 {
		h.dropNamed()
	}
	return nil
}

// readOptions reads the value of a Connection field.
func (h *header) readOptions(list []byte) {
	for option := range bytes.SplitSeq(list, []byte(",")) {
		switch option = bytes.Trim(option, " \t"); {
		case len(option) == 0:
		case httpkit.FieldIs(option, "close"):
			h.close = true
		case httpkit.FieldIs(option, "keep-alive"):
			h.keepAlive = true
		default:
			h.named = append(h.named, option)
		}
	}
}

// dropField removes a field.
func (h *header) dropField(name string) {
	h.named = append(h.named[:0], []byte(name))
	h.dropNamed()
}

// dropNamed removes the fields that Connection names.
func (h *header) dropNamed() {
	rest := h.kept
	h.kept = h.kept[:0]
	for len(rest) > 0 {
		line := rest[:bytes.Index(rest, crlf)+len(crlf)]
		rest = rest[len(line):]
		name, _, _ := bytes.Cut(line, []byte(":"))
		if !slices.ContainsFunc(h.named, func(option []byte) bool { return bytes.EqualFold(option, name) }) {
			h.kept = append(h.kept, line...) // moves line towards the front of the same array
		}
	}
}

var crlf = []byte("\r\n")

// meaning is the significance of a field to a proxy.
type meaning int

const (
	endToEnd meaning = iota // forwarded
	hopByHop                // dropped
	host
	date
	connection
	contentLength
	transferEncoding
	requestID
	forwardedFor
)

// meaningOf classifies a field by its name, ignoring case. It switches on the length first, which rules out most names
// without a comparison.
func meaningOf(name []byte) meaning {
	switch len(name) {
	case 2:
		if httpkit.FieldIs(name, "te") {
			return hopByHop
		}
	case 4:
		if httpkit.FieldIs(name, "host") {
			return host
		}
		if httpkit.FieldIs(name, "date") {
			return date
		}
	case 5:
		if httpkit.FieldIs(name, "proxy") {
			return hopByHop
		}
	case 6:
		if httpkit.FieldIs(name, "expect") {
			return hopByHop
		}
	case 7:
		if httpkit.FieldIs(name, "trailer") || httpkit.FieldIs(name, "upgrade") {
			return hopByHop
		}
	case 9:
		if httpkit.FieldIs(name, "forwarded") || httpkit.FieldIs(name, "x-real-ip") {
			return hopByHop
		}
	case 10:
		if httpkit.FieldIs(name, "connection") {
			return connection
		}
		if httpkit.FieldIs(name, "keep-alive") {
			return hopByHop
		}
	case 12:
		if httpkit.FieldIs(name, "x-request-id") {
			return requestID
		}
	case 14:
		if httpkit.FieldIs(name, "content-length") {
			return contentLength
		}
	case 15:
		if httpkit.FieldIs(name, "x-forwarded-for") {
			return forwardedFor
		}
	case 17:
		if httpkit.FieldIs(name, "transfer-encoding") {
			return transferEncoding
		}
	}
	if hasPrefix(name, "proxy-") || hasPrefix(name, "x-forwarded-") {
		return hopByHop
	}
	return endToEnd
}

func hasPrefix(name []byte, lower string) bool {
	return len(name) >= len(lower) && httpkit.FieldIs(name[:len(lower)], lower)
}

// isToken reports whether b is a valid field name (RFC 9110, section 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		if !tokens[c] {
			return false
		}
	}
	return len(b) > 0
}

var tokens = func() (t [256]bool) {
	for c := range t {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
			c < 0x80 && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return t
}()

// isText reports whether b is a valid field value: no control characters except tabs.
func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
