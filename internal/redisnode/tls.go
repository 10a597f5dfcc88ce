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

// TLS says how connections are encrypted. The files are read again when they change, so that
// certificates are rotated without a restart.
type TLS struct {
	CAFile            string // certificates of the authorities to trust, PEM; "" for those of the system
	CertFile, KeyFile string // certificate of this client and its key, PEM; "" for none
	ServerName        string // name that the server's certificate must have; "" for the host of the address
}

// certificates are what the files of a TLS hold.
type certificates struct {
	TLS

	mu     sync.Mutex // guards what follows
	read   [3]stamp   // of the files, when config was made of them
	config *tls.Config
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// load reads the files of t.
func (t TLS) load() (*certificates, error) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("a client certificate takes both a certificate and a key file")
	}
	c := &certificates{TLS: t}
	_, err := c.current()
	return c, err
}

// current returns the configuration that the files stand for now. When they have changed and cannot be
// used, which may be because a rotation is half done, it returns the last one that could.
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
			return t.last(fmt.Errorf("%s has no certificate in PEM form", t.CAFile))
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

func (t *certificates) last(err error) (*tls.Config, error) {
	if t.config != nil {
		return t.config, nil
	}
	return nil, err
}

// dialer returns a dialer for servers that are known as name.
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
			// A failed handshake is a failed dial: nothing has been sent to Redis.
			err = &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("TLS with %s: %w", addr, err)}
		}
		return conn, err
	}
}
