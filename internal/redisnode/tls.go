package redisnode

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// TLS configures encrypted connections. A new connection reads files that have changed, so certificates are
// rotated without a restart.
type TLS struct {
	CAFile            string // PEM file of trusted certificate authorities; "" for the system's
	CertFile, KeyFile string // PEM files of the client certificate and its key; "" for none
	ServerName        string // name that the server's certificate must have; "" for the host of the address
}

// certificates caches the content of the files of a TLS.
type certificates struct {
	TLS

	mu     sync.Mutex // guards the fields below
	read   [3]stamp   // versions of CAFile, CertFile and KeyFile in config
	config *tls.Config
}

// stamp identifies a version of a file.
type stamp struct {
	modified time.Time
	size     int64
}

// load reads the files of t.
func (t TLS) load() (*certificates, error) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("a client certificate requires both a certificate file and a key file")
	}
	c := &certificates{TLS: t}
	_, err := c.current()
	return c, err
}

// current returns the configuration from the files as they are now. If it cannot use them, perhaps because
// only some have been replaced yet, it returns the last working configuration.
func (t *certificates) current() (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var now [3]stamp
	for i, file := range []string{t.CAFile, t.CertFile, t.KeyFile} {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return t.last(err)
		}
		now[i] = stamp{info.ModTime(), info.Size()}
	}
	if t.config != nil && now == t.read {
		return t.config, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return t.last(err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return t.last(fmt.Errorf("%s contains no certificate in PEM format", t.CAFile))
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return t.last(fmt.Errorf("client certificate: %w", err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	t.config, t.read = c, now
	return c, nil
}

// last returns the last working configuration, or err if there is none.
func (t *certificates) last(err error) (*tls.Config, error) {
	if t.config != nil {
		return t.config, nil
	}
	return nil, err
}

// dialer returns a dialer for servers with a certificate for name, unless ServerName overrides it.
func (t *certificates) dialer(name string, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		config, err := t.current()
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("TLS: %w", err)}
		}
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName = name
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 5 * time.Minute}, Config: config}
		conn, err := d.DialContext(ctx, network, addr)
		if op := (*net.OpError)(nil); err != nil && !errors.As(err, &op) {
			// Callers classify it as a failed dial, because no command has been sent.
			err = &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("TLS with %s: %w", addr, err)}
		}
		return conn, err
	}
}
