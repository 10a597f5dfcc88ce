package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

// TLS adds a TLS port; see Server.TLSAddr. The server presents pair and verifies client certificates against
// ca. Replication, Sentinels and the cluster bus use the plain port.
func TLS(ca *CA, pair KeyPair) Option {
	return func(o *options) { o.ca, o.pair = ca, pair }
}

// ClientCertificates makes the TLS port require a client certificate issued by its CA.
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

// TLSAddr returns the host:port of the TLS port, or "" without TLS.
func (s *Server) TLSAddr() string {
	if s.opts.ca == nil {
		return ""
	}
	return localAddr(s.tlsPort.number)
}

// CA is a certificate authority for a test. Its files are removed when the test ends.
type CA struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// KeyPair is a certificate and its private key, as paths of PEM files.
type KeyPair struct{ CertFile, KeyFile string }

// NewCA creates a certificate authority with a self-signed certificate.
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

// File returns the path of the authority's certificate, a PEM file.
func (ca *CA) File() string { return filepath.Join(ca.dir, "ca.crt") }

// Issue creates a certificate for servers and clients, valid for a day, with the
// given host names and IP addresses; by default 127.0.0.1 and localhost.
func (ca *CA) Issue(hosts ...string) KeyPair {
	ca.t.Helper()
	return ca.issue(time.Now().Add(24*time.Hour), hosts)
}

// IssueExpired creates a certificate for 127.0.0.1 and localhost that expired an
// hour ago.
func (ca *CA) IssueExpired() KeyPair {
	ca.t.Helper()
	return ca.issue(time.Now().Add(-time.Hour), nil)
}

// Replace replaces the files of pair by copies of other's files, each atomically. A process that has loaded
// the old ones keeps using them.
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
		ca.t.Fatalf("create a directory for a certificate: %v", err)
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
