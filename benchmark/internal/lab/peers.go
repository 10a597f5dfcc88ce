package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

var (
	//go:embed nginx.conf.tmpl
	nginxText string
	//go:embed haproxy.cfg.tmpl
	haproxyText string

	nginxConfig   = template.Must(template.New("nginx.conf").Parse(nginxText))
	haproxyConfig = template.Must(template.New("haproxy.cfg").Parse(haproxyText))
)

// ErrNoPeer reports that a peer is not installed.
var ErrNoPeer = errors.New("it is not installed")

// Answer is the fixed response of a peer: a post with its headers.
type Answer struct{ Body, ETag, Version string }

// Quotable reports whether nginx's configuration can contain s without escaping: a quote would end the string, $
// begins a variable, and a backslash escapes the next character.
func Quotable(s string) bool { return !strings.ContainsAny(s, `'\$`) }

// Nginx starts an nginx that answers every request for /post with the same bytes, with one worker per core.
func (l *Lab) Nginx(ctx context.Context, a Answer, cores string) (*Process, error) {
	if !Quotable(a.Body + a.ETag + a.Version) {
		return nil, errors.New("nginx's configuration cannot contain these bytes")
	}
	return l.nginx(ctx, "", a, cores)
}

// NginxProxy starts an nginx in front of a reader.
func (l *Lab) NginxProxy(ctx context.Context, reader, cores string) (*Process, error) {
	return l.nginx(ctx, reader, Answer{}, cores)
}

func (l *Lab) nginx(ctx context.Context, upstream string, a Answer, cores string) (*Process, error) {
	workers := "auto"
	if cores != "" {
		workers = "1"
	}
	return l.peer(ctx, "nginx", nginxConfig, cores, map[string]string{
		"Workers": workers, "Upstream": upstream, "Body": a.Body, "ETag": a.ETag, "Version": a.Version,
	}, func(dir, file string) []string {
		return []string{"-c", file, "-e", filepath.Join(dir, "error.log")}
	})
}

// HAProxy starts an HAProxy in front of a reader.
func (l *Lab) HAProxy(ctx context.Context, reader, cores string) (*Process, error) {
	threads := ""
	if cores != "" {
		threads = "1"
	}
	return l.peer(ctx, "haproxy", haproxyConfig, cores, map[string]string{"Threads": threads, "Upstream": reader}, func(_, file string) []string {
		return []string{"-db", "-f", file}
	})
}

// peer starts a third-party server with a configuration, and blocks until it listens.
func (l *Lab) peer(ctx context.Context, name string, config *template.Template, cores string, values map[string]string, args func(dir, file string) []string) (*Process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		// Debian installs servers in a folder that is only on the PATH of root.
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return nil, ErrNoPeer
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return nil, fmt.Errorf("create a folder for %s: %w", name, err)
	}
	values["Dir"], values["Addr"] = dir, local(port)
	var text bytes.Buffer
	if err := config.Execute(&text, values); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
	}
	p, err := l.start(program{name: name, addr: local(port), cores: cores, path: path, args: args(dir, file)})
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, path, "-v").CombinedOutput(); err == nil {
		p.Version = string(regexp.MustCompile(`[0-9]+(\.[0-9]+)+`).Find(out))
	}
	return p, p.await(ctx, p.listens)
}

// NetHTTP starts a net/http server that answers every request with the same bytes.
func (l *Lab) NetHTTP(ctx context.Context, a Answer, cores string) (*Process, error) {
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := l.start(program{
		name: "nethttp", addr: local(port), cores: cores, path: l.roles, args: []string{"nethttp"},
		env: []string{"ADDR=" + local(port), "BODY=" + a.Body, "ETAG=" + a.ETag, "VERSION=" + a.Version},
	})
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, p.listens)
}
