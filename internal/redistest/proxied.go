package redistest

import (
	"bytes"
	"net"
	"strconv"

	"heavy-read-api/internal/faultnet"
)

// Proxied puts a faultnet.Proxy in front of the server, which
// announces the proxy's address instead of its own, so that clients and other nodes
// come through it. Server.Addr stays the direct way, which no fault touches.
//
// Redis has one address for clients and replicas, and so they share the proxy. It
// tells them apart by what they send first: a replica sends PING in upper case,
// which client libraries do not. So Server.FromClients selects clients only,
// Server.From one replica's connections, and
// Server.Proxy().Only(faultnet.Contains("writer")) for instance some clients by the
// name of their user.
func Proxied() Option {
	return func(o *options) { o.proxied = true }
}

// Proxy is the proxy in front of the server, nil without Proxied.
func (s *Server) Proxy() *faultnet.Proxy { return s.proxy }

// Announced is the host:port that the server gives to clients and other nodes.
func (s *Server) Announced() string {
	if s.proxy != nil {
		return s.proxy.Addr()
	}
	return s.Addr()
}

// FromClients selects the connections through the proxy that no other node made.
func (s *Server) FromClients() *faultnet.Selection {
	s.t.Helper()
	s.requireProxy()
	return s.proxy.Only(func(c faultnet.Conn) bool { return len(c.Head) > 0 && !fromNode(c.Head) })
}

// From selects the connections through the proxy that other, a replica, made. Its
// name for itself comes after its first PING, so a handshake gets that far before a
// fault is felt.
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
	return bytes.HasPrefix(head, []byte("*1\r\n$4\r\nPING\r\n"))
}

// signature is how a node introduces itself where it connects.
func (s *Server) signature() []byte {
	_, port, _ := net.SplitHostPort(s.Announced())
	return []byte("\r\nlistening-port\r\n$" + strconv.Itoa(len(port)) + "\r\n" + port + "\r\n")
}

func (s *Server) announceConfig() []string {
	if s.proxy == nil {
		return nil
	}
	host, port, _ := net.SplitHostPort(s.proxy.Addr())
	return []string{"replica-announce-ip " + host, "replica-announce-port " + port}
}
