package redistest

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"testing"

	"heavy-read-api/internal/test/faultnet"
)

// Proxied puts a faultnet.Proxy in front of the server, and a second one in front of its cluster bus. The
// server announces their addresses, so clients and other nodes connect through them. Server.Addr remains the
// direct address, which bypasses the proxies.
//
// Redis announces one address to clients, replicas and Sentinels, so they share the first proxy. It
// classifies connections by their first bytes. A replica begins with an upper-case PING, or AUTH or REPLCONF
// on the second connection that Redis 8 opens for its snapshot; client libraries send lower case. A Sentinel
// sets the name of its connection. A test can therefore break
//
//   - the connections of one user's clients: Server.Proxy().Only with faultnet.Contains("writer");
//   - the connections from one node to another: Server.From;
//   - all connections between some nodes and the others, while clients reach both sides: Partition of the
//     deployment.
//
// A Migration uses the direct address.
func Proxied() Option {
	return func(o *options) { o.proxied = true }
}

// Proxy returns the proxy in front of the server, nil without Proxied.
func (s *Server) Proxy() *faultnet.Proxy { return s.proxy }

// Announced returns the host:port that the server announces to clients and other nodes.
func (s *Server) Announced() string {
	if s.proxy != nil {
		return s.proxy.Addr()
	}
	return s.Addr()
}

// From selects the connections through the proxy that other opened: replication if other is a server,
// commands and subscription if it is a Sentinel. A replica identifies itself only after its first PING, so
// faults affect a new connection from then on.
func (s *Server) From(other *Server) *faultnet.Selection {
	s.t.Helper()
	s.requireProxy()
	signature := other.signature()
	return s.proxy.Only(func(c faultnet.Conn) bool { return fromNode(c.Head) && bytes.Contains(c.Head, signature) })
}

func (s *Server) requireProxy() {
	s.t.Helper()
	if s.proxy == nil {
		s.t.Fatalf("%s has no proxy: start it with Proxied", s.Addr())
	}
}

func fromNode(head []byte) bool {
	_, command, _ := bytes.Cut(head, []byte("\r\n")) // skip the array header
	for _, first := range []string{"$4\r\nPING\r\n", "$4\r\nAUTH\r\n", "$8\r\nREPLCONF\r\n"} {
		if bytes.HasPrefix(command, []byte(first)) {
			return true
		}
	}
	return bytes.Contains(head, []byte("\r\nsentinel-"))
}

// signature returns the text by which a node identifies itself on its connections. A Sentinel's connection
// name contains the first eight characters of its id.
func (s *Server) signature() []byte {
	if s.opts.sentinel != nil {
		return []byte("\r\nsentinel-" + s.nodeID[:8] + "-")
	}
	_, port, _ := net.SplitHostPort(s.Announced())
	return []byte("\r\nlistening-port\r\n$" + strconv.Itoa(len(port)) + "\r\n" + port + "\r\n")
}

// busFrom selects the connections to the cluster bus that other opened. Each message header contains the
// sender's id at a fixed offset.
func (s *Server) busFrom(other *Server) *faultnet.Selection {
	const begin, end = 40, 80
	return s.busProxy.Only(func(c faultnet.Conn) bool {
		return len(c.Head) >= end && string(c.Head[begin:end]) == other.nodeID
	})
}

// partition drops all traffic between nodes and the other servers in all, in both directions.
func partition(t testing.TB, all, nodes []*Server) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range all {
			if !slices.Contains(nodes, b) {
				a.isolateFrom(b)
				b.isolateFrom(a)
			}
		}
	}
}

func (s *Server) isolateFrom(other *Server) {
	s.t.Helper()
	links := []*faultnet.Selection{s.From(other)}
	if s.busProxy != nil {
		links = append(links, s.busFrom(other))
	}
	for _, link := range links {
		link.BlackHole(faultnet.ToServer, true)
		link.BlackHole(faultnet.ToClient, true)
	}
}

func heal(nodes []*Server) {
	for _, s := range nodes {
		for _, p := range []*faultnet.Proxy{s.proxy, s.busProxy} {
			if p != nil {
				p.Heal()
			}
		}
	}
}

func (s *Server) announceConfig() []string {
	if s.proxy == nil {
		return nil
	}
	host, port, _ := net.SplitHostPort(s.proxy.Addr())
	if s.opts.sentinel != nil {
		return []string{"sentinel announce-ip " + host, "sentinel announce-port " + port}
	}
	lines := []string{"replica-announce-ip " + host, "replica-announce-port " + port}
	if s.busProxy != nil {
		_, busPort, _ := net.SplitHostPort(s.busProxy.Addr())
		lines = append(lines, "cluster-announce-port "+port, "cluster-announce-bus-port "+busPort)
	}
	return lines
}
