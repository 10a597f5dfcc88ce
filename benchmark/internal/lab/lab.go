// Package lab starts processes that only the benchmark uses: a Redis with a writer and a reader, and the peers
// that they are compared with. Unlike the processes of the stack, they can be pinned to a core of their own.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"heavy-read-api/benchmark/internal/machine"
)

// Lab owns a folder and the processes that were started in it. It is not safe for concurrent use.
type Lab struct {
	dir       string
	roles     string // path of the roles program; "" until it is built
	taskset   string // path, or "" where processes cannot be pinned
	processes []*Process
}

// Cores are lists of cores in the format of taskset. An empty list means all cores.
type Cores struct{ Server, Clients string }

// New creates a lab. Close stops its processes and deletes its folder.
func New() (*Lab, error) {
	dir, err := os.MkdirTemp("", "benchmark-lab-")
	if err != nil {
		return nil, fmt.Errorf("create a folder for the benchmark's own processes: %w", err)
	}
	l := &Lab{dir: dir}
	l.taskset, _ = exec.LookPath("taskset")
	return l, nil
}

// Close stops all processes, the last one first, and deletes the folder.
func (l *Lab) Close() {
	for len(l.processes) > 0 {
		l.processes[len(l.processes)-1].Stop()
	}
	_ = os.RemoveAll(l.dir)
}

// SeparateCores returns one core for a server and the others for everything else. ok is false when there is only
// one core or processes cannot be pinned.
func (l *Lab) SeparateCores() (c Cores, ok bool) {
	cores := runtime.NumCPU()
	if l.taskset == "" || cores < 2 {
		return Cores{}, false
	}
	c = Cores{Server: "0", Clients: "1"}
	if cores > 2 {
		c.Clients = fmt.Sprintf("1-%d", cores-1)
	}
	return c, true
}

// Pin moves this process, and the processes that it starts later, to cores; "" means all cores. It does not move
// running processes of the lab.
func (l *Lab) Pin(ctx context.Context, cores string) error {
	return l.pin(ctx, os.Getpid(), cores)
}

func (l *Lab) pin(ctx context.Context, pid int, cores string) error {
	if l.taskset == "" {
		return nil
	}
	if cores == "" {
		cores = fmt.Sprintf("0-%d", runtime.NumCPU()-1)
	}
	out, err := exec.CommandContext(ctx, l.taskset, "-a", "-c", "-p", cores, strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pin process %d to the cores %s: %w: %s", pid, cores, err, bytes.TrimSpace(out))
	}
	return nil
}

// Process is a process of the lab.
type Process struct {
	Addr    string // host:port on which it listens
	Version string // version of a peer
	lab     *Lab
	name    string
	log     string // path of its output
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// program is a process to start.
type program struct {
	name  string
	addr  string
	cores string   // list in the format of taskset; "" means all cores
	env   []string // environment of the program, in addition to PATH
	path  string
	args  []string
}

// start starts a program and returns without waiting until it listens.
func (l *Lab) start(p program) (*Process, error) {
	path, args := p.path, p.args
	if p.cores != "" {
		path, args = l.taskset, append([]string{"-c", p.cores, path}, args...)
	}
	file, err := os.CreateTemp(l.dir, p.name+"-*.log")
	if err != nil {
		return nil, fmt.Errorf("create a log for %s: %w", p.name, err)
	}
	defer file.Close()
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, p.env...)
	cmd.Stdout, cmd.Stderr = file, file
	// A separate process group, so that Ctrl-C in the terminal does not reach it before Stop does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	started := &Process{Addr: p.addr, lab: l, name: p.name, log: file.Name(), cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its log tells why it exited
		close(started.ended)
	}()
	l.processes = append(l.processes, started)
	return started, nil
}

const (
	startLimit = time.Minute     // limit for a process to become ready, including a reader's snapshot of all posts
	stopLimit  = 5 * time.Second // time between SIGTERM and SIGKILL
)

// await blocks until check returns nil. The error contains the end of the process's log.
func (p *Process) await(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it is not ready after %v", startLimit))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if check(ctx) == nil {
			return nil
		}
		var err error
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-p.ended:
			err = errors.New("it has exited")
		}
		output, _ := os.ReadFile(p.log)
		return fmt.Errorf("start %s: %w: %s", p.name, err, bytes.TrimSpace(output[max(0, len(output)-1000):]))
	}
}

// listens is a check for await: it returns nil when the process accepts connections.
func (p *Process) listens(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", p.Addr)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// Stop ends the process and blocks until it has ended.
func (p *Process) Stop() {
	for i, other := range p.lab.processes {
		if other == p {
			p.lab.processes = append(p.lab.processes[:i:i], p.lab.processes[i+1:]...)
			break
		}
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // the whole group, which includes its workers
		<-p.ended
	}
}

// Pin moves a running process to other cores; "" means all cores.
func (p *Process) Pin(ctx context.Context, cores string) error {
	return p.lab.pin(ctx, p.cmd.Process.Pid, cores)
}

// CPU returns the CPU time of the process and its workers, and whether it is known.
func (p *Process) CPU() (time.Duration, bool) {
	cpu, err := machine.TreeCPU(p.cmd.Process.Pid)
	return cpu, err == nil
}

// OwnCPU returns the CPU time of the process without its children, or false if the platform does not tell.
func (p *Process) OwnCPU() (time.Duration, bool) {
	cpu, err := machine.ProcessCPU(p.cmd.Process.Pid)
	return cpu, err == nil
}

// Wait returns how long the main thread of the process has waited for a core while it could run, or 0 if the platform does not
// tell.
func (p *Process) Wait() time.Duration {
	wait, err := machine.ThreadWait(p.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return wait
}

// Log returns the output of the process.
func (p *Process) Log() ([]byte, error) { return os.ReadFile(p.log) }

// freePort returns a port that is free at the moment. If another process takes it first, the process that is
// meant to use it fails to start and says so.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// build builds the roles program once.
func (l *Lab) build(ctx context.Context) error {
	if l.roles != "" {
		return nil
	}
	path := filepath.Join(l.dir, "roles")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "heavy-read-api/benchmark/roles").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the benchmark's own processes: %w: %s", err, bytes.TrimSpace(out))
	}
	l.roles = path
	return nil
}
