package fastlane

import (
	"bufio"
	"strings"
	"testing"
)

// The reads of common clients are answered in the fast lane, and their connections stay open.
func TestReadsOfRealClients(t *testing.T) {
	for name, request := range map[string]string{
		"curl":            "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nUser-Agent: curl/7.88.1\nAccept: */*",
		"curl --http2":    "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nUser-Agent: curl/7.88.1\nAccept: */*\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
		"Java HttpClient": "GET /post?id=1 HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\nContent-Length: 0\nHost: localhost:8081\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\nUpgrade: h2c\nUser-Agent: Java-http-client/17.0.13",
		"Java URL":        "GET /post?id=1 HTTP/1.1\nUser-Agent: Java/17.0.13\nHost: localhost:8081\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\nConnection: keep-alive",
		"python-requests": "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nUser-Agent: python-requests/2.34.2\nAccept-Encoding: gzip, deflate\nAccept: */*\nConnection: keep-alive",
		"node fetch":      "GET /post?id=1 HTTP/1.1\nhost: localhost:8081\nconnection: keep-alive\naccept: */*\naccept-language: *\nsec-fetch-mode: cors\nuser-agent: node\naccept-encoding: gzip, deflate",
		"node http":       "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nConnection: keep-alive",
		"wget":            "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nUser-Agent: Wget/1.21.3\nAccept: */*\nAccept-Encoding: identity\nConnection: Keep-Alive",
		"ab -k":           "GET /post?id=1 HTTP/1.0\nConnection: Keep-Alive\nHost: localhost:8081\nUser-Agent: ApacheBench/2.3\nAccept: */*",
		"Chromium": "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nConnection: keep-alive\nCache-Control: max-age=0\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\nsec-ch-ua-mobile: ?0\nsec-ch-ua-platform: \"Linux\"\n" +
			"Upgrade-Insecure-Requests: 1\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\n" +
			"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7\nSec-Fetch-Site: none\nSec-Fetch-Mode: navigate\nSec-Fetch-User: ?1\nSec-Fetch-Dest: document\nAccept-Encoding: gzip, deflate, br, zstd\nAccept-Language: en-US,en;q=0.9\nCookie: a=b; c=\"d e\"",
		"Firefox":              "GET /post?id=1 HTTP/1.1\nHost: localhost:8081\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\nAccept: */*\nAccept-Language: en-US,en;q=0.5\nAccept-Encoding: gzip, deflate\nReferer: http://localhost:3000/\nConnection: keep-alive\nPriority: u=4\nTE: trailers",
		"a proxy":              "GET /post?id=1 HTTP/1.1\nHost: reader\nX-Real-IP: 10.0.0.1\nX-Forwarded-For: 10.0.0.1\nProxy-Connection: keep-alive\nKeep-Alive: timeout=5",
		"conditions":           "GET /post?id=1 HTTP/1.1\nHost: a\nIf-Match: \"a\", \"b\"\nIf-None-Match: \"c\", W/\"d\"\nX-Min-Version: e",
		"tabs and no values":   "GET /post?id=1 HTTP/1.1\nHost:\ta\t\nAccept:\nCookie: \t a=b\tc \t\nX: a value that is longer\tthan eight bytes \x80\xff",
		"HTTP/1.0, no host":    "GET /post?id=1 HTTP/1.0\nConnection: keep-alive",
		"options in two lines": "GET /post?id=1 HTTP/1.1\nHost: a\nConnection: x,, y\t,\nConnection: keep-alive",
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			c := dial(t, f)
			r := bufio.NewReader(c)
			request = strings.ReplaceAll(request, "\n", "\r\n") + "\r\n\r\n"
			for range 2 {
				send(t, c, request)
				expect(t, r, "fast", "post 1")
			}
		})
	}
}

// Requests with Connection: close, and HTTP/1.0 without keep-alive, are answered with Connection: close, and
// the server closes the connection.
func TestReadsThatCloseTheConnection(t *testing.T) {
	for name, request := range map[string]string{
		"close":           "GET /post?id=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"close in a list": "GET /post?id=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: TE , CLOSE\r\n\r\n",
		"HTTP/1.0":        "GET /post?id=1 HTTP/1.0\r\nHost: a\r\n\r\n",
		"HTTP/1.0, close": "GET /post?id=1 HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			c := dial(t, f)
			r := bufio.NewReader(c)
			send(t, c, request+get("2"))
			expectLast(t, r, "fast", "post 1")
		})
	}
}

// Reads that net/http may interpret in another way are left to net/http.
func TestUnusualReadsAreForNetHTTP(t *testing.T) {
	for _, request := range []string{
		"GET /post?id=1 HTTP/1.1\r\nHost: [::1]\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost:\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nX: folded\r\n line\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\n\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nConnection: keep alive\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nConnection: \"keep-alive\"\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n\r\n",
		"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nIf-Match: \"a\"\r\nIf-Match: \"b\"\r\n\r\n",
		"GET /post?id=1 HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
		"GET /post?id=1 HTTP/1.0\r\nConnection: x\r\nConnection: keep-alive\r\n\r\n",
		"GET /post?id=1&x=\"y\" HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /post?id=1&x=\xff HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/post?id=1 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f := start(t)
		c := dial(t, f)
		send(t, c, request)
		if res, _ := answer(t, bufio.NewReader(c)); res.Header.Get("X-Lane") != "std" || res.StatusCode != 200 {
			t.Errorf("%q: %s from the %q lane", request, res.Status, res.Header.Get("X-Lane"))
		}
	}
}
