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
	wantValue(t, tlsClient(t, s.TLSAddr(), ca.ClientConfig()), "k", "v")
	wantUnknownAuthority(t, tlsClient(t, s.TLSAddr(), other.ClientConfig()))

	named := ca.ClientConfig()
	named.ServerName = "localhost"
	wantValue(t, tlsClient(t, s.TLSAddr(), named), "k", "v")
	named = ca.ClientConfig()
	named.ServerName = "redis.example"
	var wrongName x509.HostnameError
	if err := tlsClient(t, s.TLSAddr(), named).Ping(t.Context()).Err(); !errors.As(err, &wrongName) {
		t.Errorf("a certificate of another host: %v, want x509.HostnameError", err)
	}
}

func TestTLSClientCertificates(t *testing.T) {
	Require(t)
	ca, other := NewCA(t), NewCA(t)
	s := Start(t, TLSOnly(ca, ca.Issue()), ClientCertificates())
	if s.TLSAddr() != s.Addr() {
		t.Errorf("TLS at %s, want %s", s.TLSAddr(), s.Addr())
	}
	set(t, s.Client(t), "k", "v")
	wantValue(t, tlsClient(t, s.Addr(), ca.ClientConfig(ca.Issue("client"))), "k", "v")
	for name, config := range map[string]*tls.Config{
		"no certificate":      ca.ClientConfig(),
		"another authority's": ca.ClientConfig(other.Issue()),
		"an expired one":      ca.ClientConfig(ca.IssueExpired()),
		"no TLS":              nil,
	} {
		if err := tlsClient(t, s.Addr(), config).Ping(t.Context()).Err(); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
}

func TestTLSRotation(t *testing.T) {
	Require(t)
	ca, other := NewCA(t), NewCA(t)
	pair := ca.Issue()
	s := Start(t, TLSOnly(ca, pair), ClientCertificates())
	ping := func(ca *CA) error {
		return tlsClient(t, s.Addr(), ca.ClientConfig(ca.Issue())).Ping(t.Context()).Err()
	}
	if err := ping(ca); err != nil {
		t.Fatal(err)
	}
	pair.Replace(t, ca.IssueExpired())
	if err := ping(ca); err != nil {
		t.Errorf("after the files were replaced but not loaded: %v", err)
	}
	s.SetCertificate(pair)
	var invalid x509.CertificateInvalidError
	if err := ping(ca); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("an expired certificate: %v, want x509.Expired", err)
	}
	s.SetCertificate(other.Issue())
	s.Restart()
	wantUnknownAuthority(t, tlsClient(t, s.Addr(), ca.ClientConfig(ca.Issue())))
	s.SetCertificate(ca.Issue())
	if err := ping(ca); err != nil {
		t.Errorf("a new certificate: %v", err)
	}
}

func TestTLSReplicationAndCluster(t *testing.T) {
	Require(t)
	ca := NewCA(t)
	primary := Start(t, TLSOnly(ca, ca.Issue()), ClientCertificates())
	set(t, primary.Client(t), "k", "v")
	replica := Start(t, TLSOnly(ca, ca.Issue()), ClientCertificates(), ReplicaOf(primary))
	replica.WaitReplicaInSync(primary)
	wantValue(t, replica.Client(t), "k", "v")

	c := StartCluster(t, TLSOnly(ca, ca.Issue()), ClientCertificates())
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), TLSConfig: ca.ClientConfig(ca.Issue())})
	t.Cleanup(func() { _ = client.Close() })
	set(t, client, "k", "v")
	wantValue(t, c.Owner("k").Client(t), "k", "v")
}

func TestUnixSocket(t *testing.T) {
	Require(t)
	t.Run("of a test whose name alone is longer than the longest path that a socket of this kind can have", func(t *testing.T) {
		s := Start(t, UnixSocket())
		o := clientOptions(s.Socket(), "")
		o.Network = "unix"
		set(t, newClient(t, o), "k", "v")
		s.Restart()
		wantValue(t, newClient(t, o), "k", "v")
	})
}
