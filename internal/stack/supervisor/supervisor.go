package supervisor

import (
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// firstStart is the age below which the exit of a process can mean that it cannot start at all.
const firstStart = 5 * time.Second

// maxAttempts is the number of starts of a process that ends young and was never ready: a fault that persists over two
// restarts will persist over further ones.
const maxAttempts = 3

// Supervisor starts processes, starts those again that die, and stops them.
type Supervisor struct {
	dir      string // folder of the log files
	log      *slog.Logger
	terminal io.Writer // receives the processes' warnings; must not block
	starter  *starter

	mu      sync.Mutex // guards all fields below
	procs   []*Process // in the order of their start
	closing bool       // no further process is started
}

// New returns a supervisor for the caller to close. The processes' output goes to files in dir, their warnings
// to terminal too, which must not block.
func New(dir string, log *slog.Logger, terminal io.Writer) *Supervisor {
	return &Supervisor{dir: dir, log: log, terminal: terminal, starter: newStarter()}
}

// Close releases the thread that starts processes. Every process has been stopped before.
func (s *Supervisor) Close() { s.starter.close() }

// Processes returns all processes in the order of their start.
func (s *Supervisor) Processes() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.procs)
}

// Launch starts and supervises a process. It returns once the process exists or its first start has failed.
func (s *Supervisor) Launch(spec Spec, hopeless Verdict) (*Process, error) {
	output, err := openLog(filepath.Join(s.dir, spec.Name+".log"), maxLogBytes)
	if err != nil {
		return nil, err
	}
	p := newProcess(spec, s.starter, s.log, output, s.terminal)
	p.hopeless = hopeless
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		output.Close()
		return nil, errors.New("the stack is stopping")
	}
	s.procs = append(s.procs, p)
	s.mu.Unlock()
	go p.run()
	<-p.started
	return p, nil
}

// Remove stops processes, all at the same time, waits for their end and forgets them.
func (s *Supervisor) Remove(procs []*Process) {
	stop(procs)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs = slices.DeleteFunc(s.procs, func(p *Process) bool { return slices.Contains(procs, p) })
}

// StopAll prevents further starts and stops every process: first, at the same time, all without one of the given roles,
// then those with the roles, in the order of the roles.
func (s *Supervisor) StopAll(last ...string) {
	s.mu.Lock()
	s.closing = true
	procs := slices.Clone(s.procs)
	s.mu.Unlock()
	stop(slices.DeleteFunc(slices.Clone(procs), func(p *Process) bool { return slices.Contains(last, p.Role) }))
	for _, role := range last {
		stop(slices.DeleteFunc(slices.Clone(procs), func(p *Process) bool { return p.Role != role }))
	}
}

// stop stops processes, all at the same time, and waits for their end.
func stop(procs []*Process) {
	for _, p := range procs {
		p.stop()
	}
	for _, p := range procs {
		<-p.done
	}
}

// End is how a process ended.
type End struct {
	exit      error
	lived     time.Duration
	lastError string // last line with an error, else the last line; see copyLines
	attempt   int    // number of the start, from 1
}

// Verdict is called after each exit of a process that was never ready. When it returns true, the process is not started
// again.
type Verdict func(p *Process, e End) bool

// ReportTo returns a verdict that sends the reason why a process cannot start to failed, unless failed is
// full: one reason is enough.
func ReportTo(failed chan<- error) Verdict {
	return func(p *Process, e End) bool {
		err := cannotStart(p, e)
		if err == nil {
			return false
		}
		select {
		case failed <- err:
		default:
		}
		return true
	}
}

// cannotStart returns why a process that ended can never start, or nil if it may: its port was taken after the check,
// a restart would fail in the same way, or it has ended young maxAttempts times.
func cannotStart(p *Process, e End) error {
	message, remedy := e.lastError, ""
	if p.Cure != nil {
		message, remedy = p.Cure(message)
	}
	if remedy == "" {
		if e.lived > firstStart {
			return nil
		}
		err := CheckPorts(p.Spec)
		var inUse *portInUseError
		if errors.As(err, &inUse) {
			return err
		} else if !permanent(e.exit) && e.attempt < maxAttempts {
			return nil
		}
	}
	switch {
	case message == "":
		message = ExitText(e.exit) + ", see " + p.output.path
	case !permanent(e.exit):
		message += " (" + ExitText(e.exit) + ", see " + p.output.path + ")"
	}
	return errors.New(p.Name + " cannot start: " + message + remedy)
}
