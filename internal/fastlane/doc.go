// Package fastlane serves the hot path of a read-heavy service with few system calls and no allocations, and
// leaves all other requests to net/http.
//
// A connection starts in the fast lane: one goroutine with one read buffer parses requests in place and
// answers all requests that have arrived with one write. The fast lane accepts exactly one shape of request,
//
//	GET or HEAD of <path>?<query>, HTTP/1.1 or 1.0, a valid header, no body
//
// and evaluates only the header fields on which the answer depends. Every other request (another path or
// method, a body or an expectation, unusual white space, a bare LF, TLS) is handed over to net/http together
// with the bytes already read, on the same connection, after the previous answers have been written. The fast
// lane executes no part of such a request, so each request is interpreted by exactly one parser.
//
// net/http receives one request at a time: the fast lane finds the end of the header and the length of the
// body. Once the request is answered, the connection returns to the fast lane. If the length is ambiguous
// (Transfer-Encoding with or without a Content-Length, folded lines), the connection is closed after the
// answer, so that no part of the body is parsed as a second request (request smuggling).
//
// A service that mostly writes configures another shape,
//
//	POST <path>, HTTP/1.1, a valid header with one Content-Length, a body that has arrived with the header
//
// whose requests the fast lane passes to the handler of net/http without its server. After a request for net/http, such a
// connection stays with the goroutine of net/http, which serves both lanes.
//
// Without a shape, net/http answers every request. The connection limit, the timeouts, the refusals, the framing and
// the drain work in the same way.
package fastlane
