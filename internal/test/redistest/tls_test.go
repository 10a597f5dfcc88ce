package redistest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

func tlsClient(t *testing.T, addr string, config *tls.Config) *redis.Client {
	t.Helper()
	o := clientOptions(addr, "")
	o.TLSConfig = config
	return newClient(t, o)
}

// clientConfig returns a client configuration that trusts only ca and presents one of the given pairs.
func (ca *CA) clientConfig(pairs ...KeyPair) *tls.Config {
	ca.t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(ca.cert)
	for _, pair := range pairs {
		cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
		if err != nil {
			ca.t.Fatalf("load a client certificate: %v", err)
		}
		config.Certificates = append(config.Certificates, cert)
	}
	return config
}

func wantUnknownAuthority(t *testing.T, c *redis.Client) {
	t.Helper()
	var unknown x509.UnknownAuthorityError
	if err := c.Ping(t.Context()).Err(); !errors.As(err, &unknown) {
		t.Errorf("a certificate of another authority: %v, want x509.UnknownAuthorityError", err)
	}
}

func TestTLSBesideThePlainPort(t *testing.T) {
	Require(t)
	ca, other := NewCA(t), NewCA(t)
	s := Start(t, TLS(ca, ca.Issue()))
	set(t, s.Client(t), "k", "v")
	wantValue(t, tlsClient(t, s.TLSAddr(), ca.clientConfig()), "k", "v")
	wantUnknownAuthority(t, tlsClient(t, s.TLSAddr(), other.clientConfig()))

	named := ca.clientConfig()
	named.ServerName = "localhost"
	wantValue(t, tlsClient(t, s.TLSAddr(), named), "k", "v")
	named = ca.clientConfig()
	named.ServerName = "redis.example"
	var wrongName x509.HostnameError
	if err := tlsClient(t, s.TLSAddr(), named).Ping(t.Context()).Err(); !errors.As(err, &wrongName) {
		t.Errorf("a certificate of another host: %v, want x509.HostnameError", err)
	}
}

func TestTLSClientCertificates(t *testing.T) {
	Require(t)
	ca, other := NewCA(t), NewCA(t)
	s := Start(t, TLS(ca, ca.Issue()), ClientCertificates())
	set(t, s.Client(t), "k", "v")
	wantValue(t, tlsClient(t, s.TLSAddr(), ca.clientConfig(ca.Issue("client"))), "k", "v")
	for name, config := range map[string]*tls.Config{
		"no certificate":      ca.clientConfig(),
		"another authority's": ca.clientConfig(other.Issue()),
		"an expired one":      ca.clientConfig(ca.IssueExpired()),
		"no TLS":              nil,
	} {
		if err := tlsClient(t, s.TLSAddr(), config).Ping(t.Context()).Err(); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	Require(t)
	t.Run("of a test whose name is itself longer than the longest path that a socket of this kind can have", func(t *testing.T) {
		s := Start(t, UnixSocket())
		o := clientOptions(s.Socket(), "")
		o.Network = "unix"
		set(t, newClient(t, o), "k", "v")
		s.Restart()
		wantValue(t, newClient(t, o), "k", "v")
	})
}
