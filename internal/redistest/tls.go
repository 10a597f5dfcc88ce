package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TLS gives the server a TLS port beside the plain one; see Server.TLSAddr. It
// presents pair, and trusts the certificates of ca where it looks at one.
// Replication, Sentinels and the cluster bus stay on the plain port.
func TLS(ca *CA, pair KeyPair) Option {
	return func(o *options) { o.ca, o.pair = ca, pair }
}

// TLSOnly makes TLS the only way to the server: for clients, and for the other
// nodes of a deployment, to which it also presents pair as its client
// certificate. All nodes of a deployment need it. Server.Client connects with a
// certificate of ca and does not verify the server's, so that it also works
// with one that is wrong on purpose.
func TLSOnly(ca *CA, pair KeyPair) Option {
	return func(o *options) {
		o.ca, o.pair, o.tlsOnly = ca, pair, true
		o.harnessTLS = ca.ClientConfig(ca.Issue())
		o.harnessTLS.InsecureSkipVerify = true
	}
}

// ClientCertificates makes the TLS port refuse clients without a certificate of
// its CA.
func ClientCertificates() Option {
	return func(o *options) { o.clientAuth = true }
}

func (o *options) tlsConfig() []string {
	auth := "no"
	if o.clientAuth {
		auth = "yes"
	}
	return []string{
		"tls-ca-cert-file " + strconv.Quote(o.ca.File()),
		"tls-cert-file " + strconv.Quote(o.pair.CertFile),
		"tls-key-file " + strconv.Quote(o.pair.KeyFile),
		"tls-auth-clients " + auth,
	}
}

// TLSAddr is the host:port that speaks TLS, empty without TLS and TLSOnly.
func (s *Server) TLSAddr() string {
	switch {
	case s.opts.ca == nil:
		return ""
	case s.opts.tlsOnly:
		return s.Addr()
	default:
		return localAddr(s.tlsPort.number)
	}
}

// SetCertificate makes the running server load the files of pair and present
// that certificate from now on, also after a restart. With the pair that it has
// already it reads files that were replaced. Connections that exist stay.
func (s *Server) SetCertificate(pair KeyPair) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	// One command: Redis refuses a certificate whose key is not the current one.
	if _, err := s.command("CONFIG", "SET", "tls-cert-file", pair.CertFile, "tls-key-file", pair.KeyFile); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.command("CONFIG", "REWRITE"); err != nil {
		s.t.Fatal(err)
	}
}

// CA is a certificate authority of a test's own. Its files end with the test.
type CA struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// KeyPair is a certificate and its private key, as paths of PEM files.
type KeyPair struct{ CertFile, KeyFile string }

// NewCA makes an authority that trusts nothing but itself.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "redistest CA " + filepath.Base(filepath.Dir(ca.dir)) + filepath.Base(ca.dir)},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	ca.key = ca.newKey()
	ca.cert = ca.sign(template, template, ca.key, ca.key)
	ca.writePEM(ca.File(), "CERTIFICATE", ca.cert.Raw)
	return ca
}

// File is the path of the authority's certificate, in PEM.
func (ca *CA) File() string { return filepath.Join(ca.dir, "ca.crt") }

// Issue makes a certificate for a server or a client with these host names and
// IP addresses, or with 127.0.0.1 and localhost if none is given. It is valid for a
// day.
func (ca *CA) Issue(hosts ...string) KeyPair {
	ca.t.Helper()
	return ca.issue(time.Now().Add(24*time.Hour), hosts)
}

// IssueExpired makes a certificate for 127.0.0.1 and localhost that expired an
// hour ago.
func (ca *CA) IssueExpired() KeyPair {
	ca.t.Helper()
	return ca.issue(time.Now().Add(-time.Hour), nil)
}

// ClientConfig trusts only ca, and presents the first pair, if there is one.
func (ca *CA) ClientConfig(pairs ...KeyPair) *tls.Config {
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

// Replace overwrites the files of pair with those of other, each at once, as a
// rotation on disk does. Who has the old ones loaded does not notice.
func (pair KeyPair) Replace(t testing.TB, other KeyPair) {
	t.Helper()
	for to, from := range map[string]string{pair.CertFile: other.CertFile, pair.KeyFile: other.KeyFile} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to+".new", content, 0o600)
		}
		if err == nil {
			err = os.Rename(to+".new", to)
		}
		if err != nil {
			t.Fatalf("replace %s: %v", to, err)
		}
	}
}

func (ca *CA) issue(notAfter time.Time, hosts []string) KeyPair {
	ca.t.Helper()
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1", "localhost"}
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: hosts[0]},
		NotBefore: notAfter.Add(-48 * time.Hour),
		NotAfter:  notAfter,
		KeyUsage:  x509.KeyUsageDigitalSignature,
		// Redis presents the same certificate as a server and, to other nodes, as a client.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := ca.newKey()
	cert := ca.sign(template, ca.cert, key, ca.key)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatalf("encode a private key: %v", err)
	}
	dir, err := os.MkdirTemp(ca.dir, "pair")
	if err != nil {
		ca.t.Fatalf("make a folder for a certificate: %v", err)
	}
	pair := KeyPair{CertFile: filepath.Join(dir, "redis.crt"), KeyFile: filepath.Join(dir, "redis.key")}
	ca.writePEM(pair.CertFile, "CERTIFICATE", cert.Raw)
	ca.writePEM(pair.KeyFile, "PRIVATE KEY", keyDER)
	return pair
}

func (ca *CA) newKey() *ecdsa.PrivateKey {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatalf("generate a private key: %v", err)
	}
	return key
}

// sign issues a certificate for key from template, signed by the parent.
func (ca *CA) sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	ca.t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		ca.t.Fatalf("choose a serial number: %v", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		ca.t.Fatalf("sign a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatalf("parse a certificate: %v", err)
	}
	return cert
}

func (ca *CA) writePEM(path, kind string, der []byte) {
	ca.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		ca.t.Fatalf("write %s: %v", path, err)
	}
}
