package fastlane

import (
	"bytes"
	"encoding/binary"

	"heavy-read-api/internal/httpkit"
)

// Request is a request that the fast lane answers. Its slices are parts of the read buffer and are valid until
// Serve returns.
type Request struct {
	Head   bool   // the method is HEAD, else GET, or POST for the path in Config.Post
	HTTP10 bool   // the version is HTTP/1.0, else HTTP/1.1
	Query  []byte // query after the "?", not unescaped
	Fields []byte // lines of the header fields, each with its CRLF
	Body   []byte // body of a POST
	// Values of header fields without surrounding white space; nil if the field is absent.
	IfMatch     []byte
	IfNoneMatch []byte
	MinVersion  []byte
	Cookie      []byte

	post      bool  // the method is POST
	length    int64 // Content-Length of a POST
	close     bool  // Connection: close, or HTTP/1.0 without keep-alive
	keepAlive bool  // Connection: keep-alive
}

// shape has the beginnings of the requests that the fast lane accepts. Those of a path that is not configured are empty.
type shape struct {
	get, head []byte // "GET /post?" and "HEAD /post?"
	post      []byte // "POST /create"
}

func newShape(path, post string) (s shape) {
	if path != "" {
		s.get, s.head = []byte("GET "+path+"?"), []byte("HEAD "+path+"?")
	}
	if post != "" {
		s.post = []byte("POST " + post)
	}
	return s
}

// cutPrefix is bytes.CutPrefix, except that no request begins with an empty prefix.
func cutPrefix(b, prefix []byte) (rest []byte, found bool) {
	if len(prefix) == 0 {
		return b, false
	}
	return bytes.CutPrefix(b, prefix)
}

// verdict classifies the bytes at the front of the buffer.
type verdict int

const (
	partial  verdict = iota // an incomplete header
	complete                // a complete header that the fast lane accepts
	other                   // a request for net/http
)

// blankLength returns the number of CRs and LFs at the front of b. A server should ignore empty lines before a request
// (RFC 9112, section 2.2).
func blankLength(b []byte) (n int) {
	for n < len(b) && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// findEnd returns the length of the header at the front of b, 0 if its end has not arrived. As in net/http, a line
// ends with LF, and a CR before the LF is not part of the line. The first scanned bytes of b, which an earlier
// call has searched without finding the end, are skipped.
func findEnd(b []byte, scanned int) int {
	for at := scanned; ; at++ {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i
		if at >= 1 && b[at-1] == '\n' || at >= 2 && b[at-1] == '\r' && b[at-2] == '\n' {
			return at + 1
		}
	}
}

// hasForeignLine reports whether b begins with a complete line that is not a request line of HTTP/1.
func hasForeignLine(b []byte) bool {
	line, _, whole := bytes.Cut(b, []byte("\n"))
	return whole && !bytes.Contains(line, []byte(" HTTP/1."))
}

func isHead(b []byte) bool { return bytes.HasPrefix(b, []byte("HEAD ")) }

// bodyLength returns the length of the body that follows a header, in bytes. ok is false if only net/http can
// determine it: with a Transfer-Encoding, several lengths or folded lines.
func bodyLength(header []byte) (n int64, ok bool) {
	seen := false
	_, rest, _ := bytes.Cut(header, []byte("\n"))
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch fieldOf(name) {
		case special:
			if len(name) == len("transfer-encoding") {
				return 0, false
			}
		case length:
			n, ok = httpkit.ParseLength(trimLeft(trimRight(bytes.TrimSuffix(value, []byte("\r")))))
			if seen || !ok {
				return 0, false
			}
			seen = true
		}
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			return 0, false
		}
	}
	return n, true
}

// parse parses a complete header. It reports whether the fast lane accepts the request.
func (s *shape) parse(b []byte, q *Request) bool {
	*q = Request{}
	found := false
	if b, found = cutPrefix(b, s.get); !found {
		if b, q.Head = cutPrefix(b, s.head); !q.Head {
			if b, q.post = cutPrefix(b, s.post); !q.post {
				return false
			}
		}
	}
	n := 0
	for !q.post && class[b[n]]&query != 0 {
		n++
	}
	q.Query, b = b[:n], b[n:]
	const newVersion, oldVersion = " HTTP/1.1\r\n", " HTTP/1.0\r\n"
	switch {
	case bytes.HasPrefix(b, []byte(newVersion)):
	case bytes.HasPrefix(b, []byte(oldVersion)):
		q.HTTP10 = true
	default:
		return false
	}
	b = b[len(newVersion):]
	fields := b
	hosts, connections, lengths := 0, 0, 0
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
		n = textLength(b)
		if b[n] != '\r' || b[n+1] != '\n' {
			return false // a control character, or a bare CR or LF
		}
		value := trimRight(b[:n])
		b = b[n+2:]
		ok := true
		switch fieldOf(name) {
		case plain:
		case host:
			hosts++
			ok = plainHost(value)
		case connection:
			connections++
			ok = q.readOptions(value)
		case length:
			lengths++
			if q.length, ok = httpkit.ParseLength(value); ok {
				ok = lengths == 1 && (q.post || string(value) == "0") // net/http closes after several
			}
		case ifMatch:
			ok = once(&q.IfMatch, value)
		case ifNoneMatch:
			ok = once(&q.IfNoneMatch, value)
		case minVersion:
			ok = once(&q.MinVersion, value)
		case cookie:
			ok = once(&q.Cookie, value)
		case special:
			ok = false
		}
		if !ok {
			return false
		}
	}
	if len(b) != len("\r\n") { // a line began with a bare CR
		return false
	}
	q.Fields = fields[:len(fields)-len(b)]
	if q.post {
		return !q.HTTP10 && hosts == 1 && q.length > 0
	}
	if q.HTTP10 {
		ambiguous := connections > 1 || q.close && q.keepAlive
		q.close = !q.keepAlive
		return hosts <= 1 && !ambiguous
	}
	return hosts == 1
}

// once stores the value of a field. It returns false if the field is repeated, because only net/http joins the
// lines of a list.
func once(field *[]byte, value []byte) bool {
	if *field != nil {
		return false
	}
	*field = value
	return true
}

// readOptions parses the value of a Connection field. It returns false if the value is not a list of tokens. Only
// close and keep-alive have an effect: a server may ignore an upgrade, and the other options only name fields
// that are meant for this hop.
func (q *Request) readOptions(list []byte) bool {
	for {
		for len(list) > 0 && (list[0] == ',' || list[0] == ' ' || list[0] == '\t') {
			list = list[1:]
		}
		if len(list) == 0 {
			return true
		}
		n := 0
		for n < len(list) && class[list[n]]&token != 0 {
			n++
		}
		switch option := list[:n]; {
		case n == len("close") && httpkit.FieldIs(option, "close"):
			q.close = true
		case n == len("keep-alive") && httpkit.FieldIs(option, "keep-alive"):
			q.keepAlive = true
		}
		list = trimLeft(list[n:])
		if n == 0 || len(list) > 0 && list[0] != ',' {
			return false
		}
	}
}

// textLength returns the number of bytes at the front of b that are allowed in a field value. b must contain a
// byte that is not allowed.
func textLength(b []byte) int {
	n := 0
	for n+8 <= len(b) && !hasControl(binary.LittleEndian.Uint64(b[n:])) {
		n += 8
	}
	for class[b[n]]&text != 0 {
		n++
	}
	return n
}

// hasControl reports whether any of the eight bytes of x is a control character, including a tab.
func hasControl(x uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	del := x ^ 0x7f*ones
	return ((x-' '*ones)&^x|(del-ones)&^del)&tops != 0
}

func trimLeft(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// field is the significance of a header field to the fast lane.
type field int

const (
	plain   field = iota // ignored
	special              // the request is for net/http
	host
	connection
	length
	ifMatch
	ifNoneMatch
	minVersion
	cookie
)

// fieldOf classifies a header field by its name, ignoring case. It switches on the length first, which rules out
// most names without a comparison.
func fieldOf(name []byte) field {
	switch len(name) {
	case 4:
		if httpkit.FieldIs(name, "host") {
			return host
		}
	case 6:
		if httpkit.FieldIs(name, "expect") {
			return special
		}
		if httpkit.FieldIs(name, "cookie") {
			return cookie
		}
	case 8:
		if httpkit.FieldIs(name, "if-match") {
			return ifMatch
		}
	case 10:
		if httpkit.FieldIs(name, "connection") {
			return connection
		}
	case 13:
		if httpkit.FieldIs(name, "if-none-match") {
			return ifNoneMatch
		}
		if httpkit.FieldIs(name, "x-min-version") {
			return minVersion
		}
	case 14:
		if httpkit.FieldIs(name, "content-length") {
			return length
		}
	case 17:
		if httpkit.FieldIs(name, "transfer-encoding") {
			return special
		}
	}
	return plain
}

// plainHost reports whether a Host is a name or an IPv4 address, with or without a port. Requests with
// any other Host go to net/http, which validates it.
func plainHost(value []byte) bool {
	n := 0
	for n < len(value) && class[value[n]]&hostname != 0 {
		n++
	}
	if n == 0 {
		return false
	}
	if value = value[n:]; len(value) > 0 && value[0] != ':' {
		return false
	}
	for i := 1; i < len(value); i++ {
		if value[i] < '0' || value[i] > '9' {
			return false
		}
	}
	return true
}

// Classes of characters.
const (
	query    = 1 << iota // allowed in the query of a URL by RFC 3986 or by browsers
	token                // allowed in a field name (RFC 9110)
	text                 // allowed in a field value (RFC 9110)
	hostname             // allowed in host names and IPv4 addresses
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		in := func(set string) bool { return bytes.IndexByte([]byte(set), byte(c)) >= 0 }
		if c > ' ' && c < 0x7f && !in(`"#<>`) {
			t[c] |= query
		}
		if alnum || in("!#$%&'*+-.^_`|~") {
			t[c] |= token
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= text
		}
		if alnum || in("-._") {
			t[c] |= hostname
		}
	}
	return t
}()
