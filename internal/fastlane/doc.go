// Package fastlane serves the one kind of request that a read-heavy service lives on, and leaves
// HTTP to net/http.
//
// A connection starts in the fast lane: a goroutine with one read buffer that parses requests in
// place and answers all that have arrived with one write. It recognizes exactly one shape,
//
//	GET or HEAD of <path>?<query>, HTTP/1.1 or 1.0, a valid header, no body
//
// and of the header fields only those that the answer depends on. Whatever is not exactly that
// shape - another path or method, a body or an expectation, odd white space, a bare LF, TLS - goes
// with the bytes already read to net/http, on the same connection, after the answers before it are
// out. So no request is judged by two parsers: what the fast lane does not accept it has not touched.
//
// net/http gets one request at a time: the fast lane has found the end of its header and knows the
// length of its body. Once it is answered, the connection returns to the fast lane. Where the length
// is in doubt (Transfer-Encoding, with or without a Content-Length, folded lines), the connection is
// closed after the answer, so that nobody reads a second request out of the first one's body.
//
// A server without a handler for the fast lane leaves every request to net/http, and still has the rest:
// the limit of connections, the timeouts, the refusals, the framing and the drain.
package fastlane
