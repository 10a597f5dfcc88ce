package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/faultnet"
)

const (
	// readyTimeout bounds a start, which includes loading the append-only file.
	readyTimeout = 30 * time.Second
	pollInterval = 5 * time.Millisecond
)

// Server is a redis-server process, with an append-only file and fsync always, or a Sentinel. It is stopped
// when the test ends. Its methods lock, but call them only from the test's goroutine, because they stop the
// test on errors.
type Server struct {
	t        testing.TB
	dir      string
	port     port
	tlsPort  port // zero unless TLS adds a second port
	opts     options
	socket   string          // path of the Unix socket, empty without UnixSocket
	proxy    *faultnet.Proxy // in front of the port; nil without Proxied
	busProxy *faultnet.Proxy // in front of the cluster bus; nil unless Proxied in a cluster
	nodeID   string          // id of a Sentinel or a cluster node, set after the start

	mu     sync.Mutex // guards the fields below, and redis.conf while no process runs
	cmd    *exec.Cmd
	exited <-chan struct{} // closed when cmd has ended; nil before the first start
}

// Start starts a redis-server on 127.0.0.1 with its data in t.TempDir, and blocks until it answers. Later
// starts of the Server use the same port, data and redis.conf, including the changes by CONFIG REWRITE or a
// Sentinel.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir()}
	for _, o := range opts {
		o(&s.opts)
	}
	s.prepare()
	t.Cleanup(s.cleanup) // registered after TempDir, so that it runs before the removal

	s.mu.Lock()
	defer s.mu.Unlock()
	for range 20 {
		err := s.choosePorts()
		if err == nil {
			err = s.writeConfig()
		}
		if err != nil {
			t.Fatalf("start redis-server: %v", err)
		}
		if err = s.launch(); err == nil {
			return s
		}
		s.releasePorts()
		if !errors.Is(err, errPortTaken) {
			t.Fatalf("start redis-server: %v", err)
		}
	}
	t.Fatal("start redis-server: 20 ports were taken between the check and the start")
	return nil
}

// prepare creates the socket's directory and the proxies, which do not depend on the port.
func (s *Server) prepare() {
	s.t.Helper()
	if s.opts.unixSocket {
		s.socket = socketPath(s.t)
	}
	if s.opts.proxied {
		s.proxy = faultnet.NewProxy(s.t, "")
		if s.opts.cluster != noCluster {
			s.busProxy = faultnet.NewProxy(s.t, "")
		}
	}
}

// choosePorts reserves the ports and points the proxies at them.
func (s *Server) choosePorts() error {
	var err error
	if s.port, err = reservePort(); err != nil {
		return err
	}
	if s.opts.ca != nil {
		if s.tlsPort, err = reservePort(); err != nil {
			return err
		}
	}
	if s.proxy != nil {
		s.proxy.SetTarget(s.Addr())
	}
	if s.busProxy != nil {
		s.busProxy.SetTarget(localAddr(s.busPort()))
	}
	return nil
}

func (s *Server) releasePorts() {
	s.port.release()
	s.tlsPort.release()
}

// Name returns "redis".
func (s *Server) Name() string { return "redis" }

// Real returns true.
func (s *Server) Real() bool { return true }

// Addr returns the direct host:port of the server, which never changes.
func (s *Server) Addr() string { return localAddr(s.port.number) }

// Port returns the port of Addr.
func (s *Server) Port() int { return s.port.number }

// Dir returns the directory of the server's data, redis.conf and redis.log.
func (s *Server) Dir() string { return s.dir }

// Client returns a client for the test's own commands, closed when t ends. It does not retry and waits at
// most 10 s for a reply.
func (s *Server) Client(t testing.TB) *redis.Client {
	return newClient(t, s.clientOptions())
}

func (s *Server) clientOptions() *redis.Options { return clientOptions(s.Addr(), s.opts.password) }

// PID returns the process id of the running server, or the last one if it does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Kill kills the server with SIGKILL and blocks until it has exited. It does nothing if the server does not
// run.
func (s *Server) Kill() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop stops the server with SIGTERM, for an orderly shutdown, and blocks until it has exited.
func (s *Server) Stop() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGCONT) // a paused server does not handle the SIGTERM
	select {
	case <-s.exited:
	case <-time.After(readyTimeout):
		s.t.Fatalf("redis-server %d did not exit within %v of SIGTERM", s.cmd.Process.Pid, readyTimeout)
	}
}

// Restart kills the server if it runs, and starts it again with the same port and data. It blocks until the
// data is loaded and the server answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
	s.startOnSamePort()
}

// Pause suspends the server with SIGSTOP: connections stay open, and no command gets a reply.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGSTOP)
}

// Resume resumes a paused server.
func (s *Server) Resume() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGCONT)
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("send %v to redis-server %d: %v", sig, s.cmd.Process.Pid, err)
	}
}

// kill is Kill without locking. It returns nil if the server has exited or was never started.
func (s *Server) kill() error {
	if s.exited == nil {
		return nil
	}
	select {
	case <-s.exited:
		return nil
	default:
	}
	pid := s.cmd.Process.Pid
	if err := killChild(pid); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill redis-server %d: %w", pid, err)
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(readyTimeout):
		return fmt.Errorf("redis-server %d did not exit within %v of SIGKILL", pid, readyTimeout)
	}
}

func (s *Server) cleanup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.t.Error(err)
	}
	s.releasePorts()
	if s.t.Failed() && s.exited != nil {
		s.t.Logf("redis-server %s, end of its log:\n%s", s.Addr(), s.logTail(40))
	}
}

var errPortTaken = errors.New("address already in use")

// startOnSamePort starts the server on a fixed port. It retries for a while if the port is in use, because
// the port is reserved and another process can use it only briefly.
func (s *Server) startOnSamePort() {
	s.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for {
		err := s.launch()
		if err == nil {
			return
		}
		if !errors.Is(err, errPortTaken) || time.Now().After(deadline) {
			s.t.Fatalf("start redis-server on %s: %v", s.Addr(), err)
		}
		time.Sleep(10 * pollInterval)
	}
}

// launch starts the process and waits until it answers. If it returns an error, the process has been killed.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open redis.log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	began, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("seek in redis.log: %w", err)
	}

	args := []string{s.configFile()}
	if s.opts.sentinel != nil {
		args = append(args, "--sentinel")
	}
	cmd := exec.Command("redis-server", args...)
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = log, log
	exited, err := startChild(cmd)
	if err != nil {
		return fmt.Errorf("run redis-server: %w", err)
	}
	s.cmd, s.exited = cmd, exited

	if err := s.waitReady(); err != nil {
		if killErr := s.kill(); killErr != nil {
			return killErr
		}
		if text, _ := os.ReadFile(s.logFile()); bytes.Contains(text[min(began, int64(len(text))):], []byte("Address already in use")) {
			return errPortTaken
		}
		return fmt.Errorf("%w; end of its log:\n%s", err, s.logTail(20))
	}
	return nil
}

func (s *Server) waitReady() error {
	if err := s.poll("answer PING", s.exited, s.answers); err != nil {
		return err
	}
	if s.opts.sentinel != nil && s.opts.sentinel.quick {
		return s.shortenPeriods()
	}
	if s.opts.cluster != wholeCluster {
		return nil
	}
	slots, err := s.command("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	if strings.Contains(slots, "cluster_slots_assigned:0\r") {
		if _, err := s.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383); err != nil {
			return err
		}
	}
	return s.poll("report cluster_state:ok", s.exited, func() error {
		info, err := s.command("CLUSTER", "INFO")
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errors.New(info)
		}
		return err
	})
}

// answers returns nil if our own process answers. If another test has just taken the port, its Redis may
// answer while our process is still exiting.
func (s *Server) answers() error {
	// Probe the port first, because go-redis prints a line for each refused connection.
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	_ = conn.Close()
	if _, err := s.command("PING"); err != nil {
		return err // also LOADING, until the data is loaded
	}
	info, err := s.command("INFO", "server")
	if err != nil {
		return err
	}
	if pid := infoField(info, "process_id"); pid != strconv.Itoa(s.cmd.Process.Pid) {
		return fmt.Errorf("another process, %s, answers on %s", pid, s.Addr())
	}
	return nil
}

// running returns an error if the process has ended. Callers check it first because
// go-redis prints a line for each refused connection.
func (s *Server) running() error {
	s.mu.Lock()
	exited := s.exited
	s.mu.Unlock()
	select {
	case <-exited:
		return fmt.Errorf("%s is not running", s.Addr())
	default:
		return nil
	}
}

// poll calls f until it returns nil. It returns an error that contains what, the awaited action, when ended is
// closed or after readyTimeout.
func (s *Server) poll(what string, ended <-chan struct{}, f func() error) error {
	deadline := time.NewTimer(readyTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("redis-server exited before it could %s", what)
		case <-deadline.C:
			return fmt.Errorf("redis-server did not %s within %v: %w", what, readyTimeout, err)
		case <-tick.C:
		}
	}
}

// command runs a command with a string reply.
func (s *Server) command(args ...any) (string, error) {
	answer, err := s.do(5*time.Second, args...).Text()
	if err != nil {
		return "", fmt.Errorf("%v on %s: %w", args[0], s.Addr(), err)
	}
	return answer, nil
}

// do runs a command on a new connection, because a connection pool returns cached dial errors for a second
// after a server was down.
func (s *Server) do(timeout time.Duration, args ...any) *redis.Cmd {
	c := redis.NewClient(s.clientOptions())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.Do(ctx, args...)
}

// infoField returns the value of a field in the reply of INFO.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "redis.log") }

func (s *Server) logTail(lines int) string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
