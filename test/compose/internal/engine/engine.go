// Package engine provides the Docker engine and Docker Compose for the test of the stack.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"heavy-read-api/test/compose/internal/progress"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
	pollInterval = 200 * time.Millisecond
)

// Engine is the Docker engine of the test.
type Engine struct {
	Own bool // started by Start, not found running

	dockerd *exec.Cmd
	ended   chan struct{} // closed by the goroutine that waits for dockerd
	log     *os.File
	network network
}

// Start uses the engine that answers. Where none does, it starts dockerd with its files in dir, which needs root, and
// sets DOCKER_HOST.
func Start(ctx context.Context, dir string) (*Engine, error) {
	if version, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Output(); err == nil {
		progress.Printf("using the running Docker engine %s", bytes.TrimSpace(version))
		return &Engine{}, nil
	}
	legacy, err := legacyTools(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("DOCKER_HOST", "unix://"+filepath.Join(dir, "docker.sock")); err != nil {
		return nil, err
	}
	// Kernels differ: some lack nftables or iptables, some cannot stack overlayfs.
	path := os.Getenv("PATH")
	var failures []error
	for _, try := range []struct {
		path    string
		options []string
	}{
		{path, nil},
		{legacy + ":" + path, nil},
		{path, []string{"--storage-driver", "vfs"}},
		{legacy + ":" + path, []string{"--storage-driver", "vfs"}},
	} {
		e, err := start(ctx, dir, try.path, try.options)
		if err == nil {
			return e, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("dockerd does not start (it needs root): %w", errors.Join(failures...))
}

// legacyTools returns a directory in which iptables is the variant that does without nftables.
func legacyTools(dir string) (string, error) {
	legacy := filepath.Join(dir, "legacy")
	if err := os.Mkdir(legacy, 0o755); err != nil {
		return "", err
	}
	for _, tool := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables"} {
		target := "/usr/sbin/" + strings.Replace(tool, "tables", "tables-legacy", 1)
		if err := os.Symlink(target, filepath.Join(legacy, tool)); err != nil {
			return "", err
		}
	}
	return legacy, nil
}

// start runs dockerd with the iptables that path has.
func start(ctx context.Context, dir, path string, options []string) (*Engine, error) {
	e := &Engine{Own: true, ended: make(chan struct{})}
	var err error
	if e.network, err = saveNetwork(path); err != nil {
		return nil, err
	}
	if e.log, err = os.Create(filepath.Join(dir, "dockerd.log")); err != nil {
		return nil, err
	}
	e.dockerd = exec.Command("dockerd", append([]string{
		"--host", os.Getenv("DOCKER_HOST"), "--data-root", filepath.Join(dir, "docker"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "docker.pid"),
	}, options...)...)
	e.dockerd.Env = append(os.Environ(), "PATH="+path)
	e.dockerd.Stdout, e.dockerd.Stderr = e.log, e.log
	// A session of its own, so that Ctrl-C does not end it before the stack is torn down.
	e.dockerd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := e.dockerd.Start(); err != nil {
		e.log.Close()
		return nil, err
	}
	go func() {
		_ = e.dockerd.Wait() // its log has the reason
		close(e.ended)
	}()
	if err := e.await(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// await blocks until dockerd answers.
func (e *Engine) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		info, err := exec.CommandContext(ctx, "docker", "info", "--format", "{{.ServerVersion}}, storage driver {{.Driver}}").Output()
		if err == nil {
			progress.Printf("started dockerd %s %s", bytes.TrimSpace(info), strings.Join(e.dockerd.Args[9:], " "))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dockerd does not answer: %w: %s", ctx.Err(), e.lastLog())
		case <-e.ended:
			return fmt.Errorf("dockerd ended: %s", e.lastLog())
		case <-tick.C:
		}
	}
}

// lastLog returns the last lines of dockerd's log.
func (e *Engine) lastLog() string {
	content, err := os.ReadFile(e.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// Stop ends dockerd if Start started it, and restores what dockerd changed in the machine's network.
func (e *Engine) Stop() error {
	if !e.Own {
		return nil
	}
	defer e.log.Close()
	_ = e.dockerd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-e.ended:
	case <-time.After(stopTimeout):
		_ = e.dockerd.Process.Kill()
		<-e.ended
	}
	return e.network.restore()
}

// network is the state of the machine's network before dockerd started: dockerd leaves its rules and its bridge behind.
type network struct {
	path   string // PATH that has the iptables in use
	rules  []byte // iptables-save
	bridge bool   // docker0 existed
}

const bridgePath = "/sys/class/net/docker0"

func saveNetwork(path string) (network, error) {
	n := network{path: path}
	_, err := os.Stat(bridgePath)
	n.bridge = err == nil
	if n.rules, err = n.tool("iptables-save").Output(); err != nil {
		return n, fmt.Errorf("iptables-save: %w", err)
	}
	// iptables-save leaves out a table that was never used; dockerd uses both.
	if !bytes.Contains(n.rules, []byte("*filter")) {
		n.rules = append(n.rules, "*filter\n:FORWARD ACCEPT\nCOMMIT\n"...)
	}
	if !bytes.Contains(n.rules, []byte("*nat")) {
		n.rules = append(n.rules, "*nat\nCOMMIT\n"...)
	}
	return n, nil
}

// tool returns a command that is looked up in n.path.
func (n network) tool(name string) *exec.Cmd {
	cmd := exec.Command("env", name)
	cmd.Env = append(os.Environ(), "PATH="+n.path)
	return cmd
}

func (n network) restore() error {
	cmd := n.tool("iptables-restore")
	cmd.Stdin = bytes.NewReader(n.rules)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s", err, output)
	}
	if _, err := os.Stat(bridgePath); err != nil || n.bridge {
		return nil
	}
	if output, err := exec.Command("ip", "link", "delete", "docker0").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link delete docker0: %w: %s", err, output)
	}
	return nil
}
