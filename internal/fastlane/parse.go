package fastlane

import "bytes"

// Request is a request of the shape that the fast lane knows. Its slices are parts of the read
// buffer: they are valid until Serve returns.
type Request struct {
	Head  bool   // HEAD, else GET
	Value []byte // of the parameter: unreserved characters (RFC 3986), at least one
	// Values of the header fields, without the white space around them; nil where there is none.
	IfNoneMatch []byte
	MinVersion  []byte
}

// shape is what a request target looks like.
type shape struct {
	get, head []byte // "GET /post?id=" and "HEAD /post?id="
}

func newShape(path, parameter string) shape {
	target := path + "?" + parameter + "="
	return shape{get: []byte("GET " + target), head: []byte("HEAD " + target)}
}

// begins reports whether b, the first bytes of a request, may become a request of the shape.
func (s *shape) begins(b []byte) bool {
	return bytes.HasPrefix(b, s.get[:min(len(b), len(s.get))]) || bytes.HasPrefix(b, s.head[:min(len(b), len(s.head))])
}

// verdict is what the bytes at the front of the buffer are.
type verdict int

const (
	partial  verdict = iota // a request of the shape, as far as it has arrived
	complete                // a whole header
	other                   // not for the fast lane
)

// findEnd looks for the end of the header in b. scanned is how much of b an earlier call has seen
// without finding it; that part is not looked at again.
func findEnd(b []byte, scanned int) (end int, v verdict) {
	for at := scanned; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, partial
		}
		at += i
		switch {
		case at == 0 || b[at-1] != '\r':
			return 0, other // a bare LF
		case at >= 3 && b[at-2] == '\n':
			return at + 1, complete
		}
		at++
	}
}

// parse reads a whole header, which ends with an empty line and in which every LF follows a CR. It
// reports whether it is of the shape.
func (s *shape) parse(b []byte, q *Request) bool {
	switch {
	case bytes.HasPrefix(b, s.get):
		q.Head, b = false, b[len(s.get):]
	case bytes.HasPrefix(b, s.head):
		q.Head, b = true, b[len(s.head):]
	default:
		return false
	}
	n := 0
	for class[b[n]]&unreserved != 0 {
		n++
	}
	const version = " HTTP/1.1\r\n"
	if n == 0 || len(b) < n+len(version) || string(b[n:n+len(version)]) != version {
		return false
	}
	q.Value, q.IfNoneMatch, q.MinVersion = b[:n], nil, nil
	b = b[n+len(version):]
	hosts := 0
	for b[0] != '\r' {
		n := 0
		for class[b[n]]&token != 0 {
			n++
		}
		if n == 0 || b[n] != ':' {
			return false
		}
		name := b[:n]
		b = b[n+1:]
		for b[0] == ' ' || b[0] == '\t' {
			b = b[1:]
		}
		n = 0
		for class[b[n]]&text != 0 {
			n++
		}
		if b[n] != '\r' || b[n+1] != '\n' {
			return false // a control character, or a bare CR
		}
		value := b[:n]
		b = b[n+2:]
		for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
			value = value[:len(value)-1]
		}
		switch fieldOf(name) {
		case plain:
		case host:
			hosts++
			if !validHost(value) {
				return false
			}
		case ifNoneMatch:
			if q.IfNoneMatch != nil {
				return false // lists in several lines are joined by the other lane
			}
			q.IfNoneMatch = value
		case minVersion:
			if q.MinVersion != nil {
				return false
			}
			q.MinVersion = value
		case special:
			return false
		}
	}
	return hosts == 1 && len(b) == len("\r\n") // else a line began with a bare CR
}

// field is what a header field means to the fast lane.
type field int

const (
	plain   field = iota // nothing
	special              // changes the connection or announces a body
	host
	ifNoneMatch
	minVersion
)

// fieldOf knows a header field by its name, in any case. The length tells most of them apart.
func fieldOf(name []byte) field {
	switch len(name) {
	case 2:
		return is(name, "te", special)
	case 4:
		return is(name, "host", host)
	case 6:
		return is(name, "expect", special)
	case 7:
		if is(name, "upgrade", special) == special {
			return special
		}
		return is(name, "trailer", special)
	case 10:
		if is(name, "connection", special) == special {
			return special
		}
		return is(name, "keep-alive", special)
	case 13:
		if is(name, "if-none-match", ifNoneMatch) == ifNoneMatch {
			return ifNoneMatch
		}
		return is(name, "x-min-version", minVersion)
	case 14:
		return is(name, "content-length", special)
	case 16:
		return is(name, "proxy-connection", special)
	case 17:
		return is(name, "transfer-encoding", special)
	}
	return plain
}

// is returns f when name is lower but for its case, else plain. Both have the same length.
func is(name []byte, lower string, f field) field {
	for i := range len(lower) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return plain
		}
	}
	return f
}

// validHost reports whether a Host is of the plain kind: a name or an IP address, with or without a
// port. Others go to net/http, which decides.
func validHost(value []byte) bool {
	for _, c := range value {
		if class[c]&hostname == 0 {
			return false
		}
	}
	return len(value) > 0
}

// Classes of characters.
const (
	unreserved = 1 << iota // of RFC 3986
	token                  // of RFC 9110: what a field name is made of
	text                   // of RFC 9110: what a field value is made of
	hostname               // of plain host names, addresses and ports
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if alnum || bytes.IndexByte([]byte("-._~"), byte(c)) >= 0 {
			t[c] |= unreserved
		}
		if alnum || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0 {
			t[c] |= token
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= text
		}
		if alnum || bytes.IndexByte([]byte("-._:[]"), byte(c)) >= 0 {
			t[c] |= hostname
		}
	}
	return t
}()
