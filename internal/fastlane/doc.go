// Package fastlane serves the one kind of request that a read-heavy service lives on, and leaves
// HTTP to net/http.
//
// A connection starts in the fast lane: a goroutine with one read buffer that parses requests in
// place and answers all that have arrived with one write. It knows exactly one shape,
//
//	GET or HEAD of <path>?<parameter>=<unreserved characters>, HTTP/1.1, a valid header, no body
//
// and of the header fields only those that the answer depends on. Whatever is not exactly that
// shape - another path or method, HTTP/1.0, options that change the connection or announce a body,
// odd white space, a bare LF, a line that is too long, TLS - goes with the bytes already read to
// net/http, on the same connection, after the answers before it are out; from then on the
// connection is net/http's. So no request is judged by two parsers: what the fast lane does not
// accept it has not touched.
package fastlane
