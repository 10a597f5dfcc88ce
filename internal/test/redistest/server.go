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

// Server is a redis-server process with an append-only file, fsync always, or a
// Sentinel. It ends with the test that started it. Its methods may be called
// from several goroutines, but only the test's own should: they fail the test
// with FailNow.
type Server struct {
	t        testing.TB
	dir      string
	port     port
	tlsPort  port // zero unless TLS adds a second port
	opts     options
	socket   string          // path of the Unix socket, empty without UnixSocket
	proxy    *faultnet.Proxy // in front of the port; nil without Proxied
	busProxy *faultnet.Proxy // in front of the cluster bus; nil unless Proxied in a cluster
	nodeID   string          // of a Sentinel or a member of a ClusterDeployment; set once it runs

	mu     sync.Mutex // guards what follows, and redis.conf while no process runs
	cmd    *exec.Cmd
	exited <-chan struct{} // closed when cmd has ended; nil before the first start
}

// Start starts a redis-server on 127.0.0.1 with its data in t.TempDir, and
// returns when it answers. Every later start of the Server uses the same port,
// the same data and the same redis.conf, with what Redis itself (a Sentinel, CONFIG
// REWRITE) has written there since.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir()}
	for _, o := range opts {
		o(&s.opts)
	}
	s.prepare()
	t.Cleanup(s.cleanup) // after TempDir, so that it runs before the removal

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
		if s.opts.port != 0 {
			s.startOnSamePort()
			return s
		}
		if err = s.launch(); err == nil {
			return s
		}
		s.releasePorts()
		if !errors.Is(err, errPortTaken) {
			t.Fatalf("start redis-server: %v", err)
		}
	}
	t.Fatal("start redis-server: 20 ports were taken between the look and the start")
	return nil
}

// prepare creates the socket's folder and the proxies, which need no port.
func (s *Server) prepare() {
	s.t.Helper()
	if s.opts.unixSocket {
		s.socket = socketPath(s.t)
	}
	if s.opts.proxied {
		if s.opts.tlsOnly {
			s.t.Fatal("start redis-server: Proxied classifies connections by their contents, which TLSOnly encrypts")
		}
		s.proxy = faultnet.NewProxy(s.t, "")
		if s.opts.cluster != noCluster {
			s.busProxy = faultnet.NewProxy(s.t, "")
		}
	}
}

// choosePorts reserves the ports and points the proxies at them.
func (s *Server) choosePorts() error {
	s.port = port{number: s.opts.port}
	if s.opts.port == 0 {
		p, err := reservePort()
		if err != nil {
			return err
		}
		s.port = p
	}
	if s.opts.ca != nil && !s.opts.tlsOnly {
		p, err := reservePort()
		if err != nil {
			return err
		}
		s.tlsPort = p
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

// Name is "redis".
func (s *Server) Name() string { return "redis" }

// Real is true.
func (s *Server) Real() bool { return true }

// Addr is the server's own host:port, the same for its whole life. With TLSOnly
// it speaks TLS.
func (s *Server) Addr() string { return localAddr(s.port.number) }

// Port is the port of Addr.
func (s *Server) Port() int { return s.port.number }

// Dir is the folder that holds the server's data, redis.conf and redis.log.
func (s *Server) Dir() string { return s.dir }

// Client returns a client for the test's own use, closed when t ends. It sends
// a command once and waits at most 10 s for the answer.
func (s *Server) Client(t testing.TB) *redis.Client {
	return newClient(t, s.clientOptions())
}

func (s *Server) clientOptions() *redis.Options {
	o := clientOptions(s.Addr(), s.opts.password)
	o.TLSConfig = s.opts.harnessTLS
	return o
}

// PID is the process id of the running server, or of the last one that ran.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Kill ends the server with SIGKILL and returns when it is gone. Killing one
// that has ended is no error.
func (s *Server) Kill() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// Stop ends the server with SIGTERM, so that it closes its files in order, and
// returns when it is gone.
func (s *Server) Stop() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGCONT) // a paused one does not see the SIGTERM
	select {
	case <-s.exited:
	case <-time.After(readyTimeout):
		s.t.Fatalf("redis-server %d did not end within %v of SIGTERM", s.cmd.Process.Pid, readyTimeout)
	}
}

// Restart starts the server again on the same port and data, killing it first
// if it still runs. It returns when the data is loaded and the server answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.t.Fatal(err)
	}
	s.startOnSamePort()
}

// Pause stops the server's process with SIGSTOP: its connections stay open and
// nothing answers.
func (s *Server) Pause() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal(syscall.SIGSTOP)
}

// Resume lets a paused server go on.
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

// kill is for a server that may have ended already.
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
		return fmt.Errorf("redis-server %d did not end within %v of SIGKILL", pid, readyTimeout)
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

// startOnSamePort is every start that cannot choose another port. Whoever sits
// there can only be passing, so it tries again for a while.
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

// launch starts the process once and waits until it answers. After an error no
// process is left.
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
		return s.hurry()
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

// answers reports whether this very process answers: when the port was taken
// in the last moment, someone else's Redis may sit there while ours still ends.
func (s *Server) answers() error {
	// go-redis prints a line for each refused connection, so look first.
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	_ = conn.Close()
	if _, err := s.command("PING"); err != nil {
		return err // also LOADING
	}
	info, err := s.command("INFO", "server")
	if err != nil {
		return err
	}
	if pid := infoField(info, "process_id"); pid != strconv.Itoa(s.cmd.Process.Pid) {
		return fmt.Errorf("process %s answers on %s, not ours", pid, s.Addr())
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
		return fmt.Errorf("%s does not run", s.Addr())
	default:
		return nil
	}
}

// poll calls f until it returns nil. It gives up when ended is closed or the
// time is over; what says what is waited for.
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
			return fmt.Errorf("redis-server ended before it could %s", what)
		case <-deadline.C:
			return fmt.Errorf("redis-server did not %s within %v: %w", what, readyTimeout, err)
		case <-tick.C:
		}
	}
}

// command runs one command whose answer is a string.
func (s *Server) command(args ...any) (string, error) {
	answer, err := s.do(5*time.Second, args...).Text()
	if err != nil {
		return "", fmt.Errorf("%v on %s: %w", args[0], s.Addr(), err)
	}
	return answer, nil
}

// do runs one command on a connection of its own: a pool remembers a server
// that was down, and answers from memory for a second.
func (s *Server) do(timeout time.Duration, args ...any) *redis.Cmd {
	c := redis.NewClient(s.clientOptions())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return c.Do(ctx, args...)
}

// infoField returns the value of one line of an INFO answer.
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
