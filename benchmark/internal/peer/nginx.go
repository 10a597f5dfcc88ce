// Package peer runs the servers that are measured beside ours.
package peer

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed nginx.conf.tmpl
var configText string

var config = template.Must(template.New("nginx.conf").Parse(configText))

// Nginx is an nginx that answers every request for /post with the same bytes.
type Nginx struct {
	Addr    string
	Version string
	Body    string // that it answers with
	dir     string
	cmd     *exec.Cmd
}

// ErrNone says that there is no nginx on this machine.
var ErrNone = errors.New("there is no nginx on the PATH")

// Quotable reports whether a string can stand in nginx's configuration as it is: a quote ends it
// there, $ begins a variable, a backslash escapes.
func Quotable(s string) bool { return !strings.ContainsAny(s, `'\$`) }

// StartNginx starts one with as many workers as the machine has cores. body is the answer, etag and
// version its headers: those of a post. It is up when StartNginx returns.
func StartNginx(ctx context.Context, body, etag, version string) (*Nginx, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		// Debian puts it where only root looks.
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return nil, ErrNone
		}
	}
	if !Quotable(body + etag + version) {
		return nil, errors.New("nginx's configuration cannot hold these bytes")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port for nginx: %w", err)
	}
	addr := ln.Addr().String()
	_ = ln.Close() // nginx takes it; that somebody else gets there first shows in its error
	dir, err := os.MkdirTemp("", "benchmark-nginx-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for nginx: %w", err)
	}
	n := &Nginx{Addr: addr, Body: body, dir: dir}
	if err := n.start(ctx, path, body, etag, version); err != nil {
		n.Stop()
		return nil, err
	}
	return n, nil
}

func (n *Nginx) start(ctx context.Context, path, body, etag, version string) error {
	var text bytes.Buffer
	err := config.Execute(&text, map[string]string{"Dir": n.dir, "Addr": n.Addr, "Body": body, "ETag": etag, "Version": version})
	if err != nil {
		return fmt.Errorf("write nginx's configuration: %w", err)
	}
	file := filepath.Join(n.dir, "nginx.conf")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write nginx's configuration: %w", err)
	}
	if out, err := exec.Command(path, "-v").CombinedOutput(); err == nil {
		n.Version = string(regexp.MustCompile(`[0-9.]+`).Find(out))
	}
	var errs bytes.Buffer
	cmd := exec.Command(path, "-c", file, "-e", filepath.Join(n.dir, "error.log"))
	cmd.Stderr = &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C on the terminal is ours to pass on
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	n.cmd = cmd
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Addr+"/post?id=any", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(filepath.Join(n.dir, "error.log"))
			return fmt.Errorf("nginx does not answer: %w: %s", err, bytes.TrimSpace(append(said, errs.Bytes()...)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends nginx and deletes its files. It blocks until nginx is gone.
func (n *Nginx) Stop() {
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(syscall.SIGTERM) // the master takes its workers along
		timer := time.AfterFunc(3*time.Second, func() { _ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL) })
		_ = n.cmd.Wait() // that it was killed is known
		timer.Stop()
	}
	_ = os.RemoveAll(n.dir)
}

// CPU returns what the workers have used, and whether it is known: it is on Linux.
func (n *Nginx) CPU() (time.Duration, bool) { return childrenCPU(n.cmd.Process.Pid) }
