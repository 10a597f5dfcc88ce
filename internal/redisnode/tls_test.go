package redisnode

import (
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

func TestTLS(t *testing.T) {
	redistest.Require(t)
	ca, other := redistest.NewCA(t), redistest.NewCA(t)
	server := redistest.Start(t, redistest.TLS(ca, ca.Issue("127.0.0.1")), redistest.ClientCertificates())
	expired := redistest.Start(t, redistest.TLS(ca, ca.IssueExpired()))
	elsewhere := redistest.Start(t, redistest.TLS(ca, ca.Issue("redis.test")))
	own, foreign := ca.Issue("client"), other.Issue("client")
	for _, tt := range []struct {
		name string
		addr string
		tls  TLS
		want string // part of the error, "" for none
	}{
		{"valid certificates", server.TLSAddr(), TLS{CAFile: ca.File(), CertFile: own.CertFile, KeyFile: own.KeyFile}, ""},
		{"wrong authority", server.TLSAddr(), TLS{CAFile: other.File(), CertFile: own.CertFile, KeyFile: own.KeyFile}, "unknown authority"},
		{"no client certificate", server.TLSAddr(), TLS{CAFile: ca.File()}, "certificate required"},
		{"client certificate of another authority", server.TLSAddr(), TLS{CAFile: ca.File(), CertFile: foreign.CertFile, KeyFile: foreign.KeyFile}, "unknown certificate authority"},
		{"expired", expired.TLSAddr(), TLS{CAFile: ca.File()}, "expired"},
		{"another name", elsewhere.TLSAddr(), TLS{CAFile: ca.File()}, "IP SANs"},
		{"another name that ServerName expects", elsewhere.TLSAddr(), TLS{CAFile: ca.File(), ServerName: "redis.test"}, ""},
		{"port without TLS", server.Addr(), TLS{CAFile: ca.File()}, "TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := finder(t, Config{Addrs: []string{tt.addr}, TLS: &tt.tls})
			n, err := f.Node(t.Context())
			if err == nil {
				err = n.Ping(t.Context()).Err()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("the error has more than one line: %q", err)
			}
		})
	}
}

// Certificates are rotated without a restart: after the authority's and the client's certificate change on
// disk, the next connection uses the new ones.
func TestCertificatesAreReadAgain(t *testing.T) {
	redistest.Require(t)
	old, next := redistest.NewCA(t), redistest.NewCA(t)
	server := redistest.Start(t, redistest.TLS(next, next.Issue("127.0.0.1")), redistest.ClientCertificates())
	pair := old.Issue("client")
	authority := redistest.KeyPair{CertFile: old.File(), KeyFile: old.Issue("unused").KeyFile}
	f := finder(t, Config{Addrs: []string{server.TLSAddr()}, TLS: &TLS{CAFile: authority.CertFile, CertFile: pair.CertFile, KeyFile: pair.KeyFile}})
	if _, err := f.Node(t.Context()); err == nil {
		t.Fatal("a client of the old authority connected to a server of the new one")
	}
	authority.Replace(t, redistest.KeyPair{CertFile: next.File(), KeyFile: next.Issue("unused").KeyFile})
	pair.Replace(t, next.Issue("client"))
	eventually.Nil(t, func() error { _, err := f.Node(t.Context()); return err })
}

func TestSocket(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t, redistest.UnixSocket())
	n := node(t, finder(t, Config{Addrs: []string{server.Socket()}}))
	if err := n.Ping(t.Context()).Err(); err != nil || n.Addr != server.Socket() {
		t.Errorf("over the socket %s: %v", n.Addr, err)
	}
}
