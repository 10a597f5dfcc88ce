package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Files in the run folder by which other commands find the running stack.
const (
	lockFile    = "stack.lock"
	pidFile     = "stack.pid"
	addressFile = "stack.addr" // of the control interface
)

// claim is one supervisor's hold on a run folder.
//
// The pid file alone proves nothing: the process may be gone and its number be another's by now.
// What counts is the lock, which the kernel drops with the process however it ends, and which no
// child inherits (Go opens files close-on-exec).
type claim struct {
	cfg  Config
	lock *os.File
}

var errRunning = errors.New("the stack is already running")

// claimRunDir makes the run folder this process's, or fails with errRunning.
func claimRunDir(cfg Config) (*claim, error) {
	if err := makeRunDir(cfg.RunDir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(cfg.file(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the run folder's lock: %w", err)
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (run folder %s)", errRunning, cfg.RunDir)
		}
		return nil, fmt.Errorf("lock the run folder: %w", err)
	}
	c := &claim{cfg: cfg, lock: lock}
	err = errors.Join(
		replaceFile(cfg.file(addressFile), address(cfg.Port)+"\n"),
		replaceFile(cfg.file(pidFile), strconv.Itoa(os.Getpid())+"\n"))
	if err != nil {
		c.release()
		return nil, fmt.Errorf("write the pid file: %w", err)
	}
	return c, nil
}

// makeRunDir makes the run folder, and closes one that an earlier version left open to others.
func makeRunDir(dir string) error {
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	return nil
}

// tryLock takes the lock. It tries for a moment, because running holds it for an instant.
func tryLock(f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var err error
	await(ctx, func() bool {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		return !errors.Is(err, syscall.EWOULDBLOCK)
	})
	return err
}

// release gives the run folder back. The lock file stays: a lock on a file that was removed
// excludes nobody.
func (c *claim) release() {
	os.Remove(c.cfg.file(pidFile))
	os.Remove(c.cfg.file(addressFile))
	c.lock.Close()
}

// running returns the pid and the control address of the supervisor that holds the run folder;
// pid 0 when there is none, whatever a stale pid file says.
func running(cfg Config) (pid int, control string, err error) {
	lock, err := os.OpenFile(cfg.file(lockFile), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, "", nil
	} else if err != nil {
		return 0, "", fmt.Errorf("open the run folder's lock: %w", err)
	}
	defer lock.Close() // and with it goes the lock, if we got it
	// A shared lock, so that two commands that look at the same time do not see each other.
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return 0, "", nil
	} else if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, "", fmt.Errorf("look at the run folder's lock: %w", err)
	}
	text, pidErr := os.ReadFile(cfg.file(pidFile))
	addr, addrErr := os.ReadFile(cfg.file(addressFile))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := errors.Join(pidErr, addrErr, convErr); err != nil {
		// Between lock and pid file lie microseconds, at the start and at the stop.
		return 0, "", fmt.Errorf("a stack is just starting or stopping in %s: try again (%w)", cfg.RunDir, err)
	}
	return pid, strings.TrimSpace(string(addr)), nil
}
