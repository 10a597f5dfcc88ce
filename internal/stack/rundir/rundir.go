// Package rundir lets one supervisor at a time use a run folder, and finds that supervisor for other commands. The
// folder holds posts, logs and a password, so only its owner can read it.
package rundir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heavy-read-api/internal/stack/poll"
)

// Files in the run folder by which other commands find the running supervisor.
const (
	PIDFile     = "stack.pid"
	lockFile    = "stack.lock"
	addressFile = "stack.addr" // address of the control API
)

// ErrRunning is returned when another supervisor uses the folder.
var ErrRunning = errors.New("the stack is already running")

// Claim is a supervisor's exclusive use of a run folder.
//
// The pid file alone proves nothing: its process may have ended, and another process may have the pid. The lock
// decides: the kernel releases it however the process ends, and no child inherits it (Go opens files
// close-on-exec).
type Claim struct {
	dir  string
	lock *os.File
}

// Take claims the folder for this process, whose control API has the given address. It makes the folder where
// there is none, and returns ErrRunning when another process has claimed it.
func Take(dir, control string) (*Claim, error) {
	if err := Make(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the run folder's lock: %w", err)
	}
	if err := tryLock(lock); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (run folder %s)", ErrRunning, dir)
		}
		return nil, fmt.Errorf("lock the run folder: %w", err)
	}
	c := &Claim{dir: dir, lock: lock}
	err = errors.Join(
		WriteFile(filepath.Join(dir, addressFile), control+"\n"),
		WriteFile(filepath.Join(dir, PIDFile), strconv.Itoa(os.Getpid())+"\n"))
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("write the pid file: %w", err)
	}
	return c, nil
}

// Make makes the folder, and removes other users' access to one that an earlier version made.
func Make(dir string) error {
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	return nil
}

// tryLock takes the lock. It retries for a moment, because Running holds the lock briefly.
func tryLock(f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var err error
	poll.Until(ctx, func() bool {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		return !errors.Is(err, syscall.EWOULDBLOCK)
	})
	return err
}

// Release ends the claim. The lock file stays: a lock on a removed file excludes no other process.
func (c *Claim) Release() {
	Forget(c.dir)
	c.lock.Close()
}

// Forget removes the files by which a supervisor is found. A supervisor that was killed leaves them behind.
func Forget(dir string) {
	os.Remove(filepath.Join(dir, PIDFile))
	os.Remove(filepath.Join(dir, addressFile))
}

// Running returns pid and control address of the supervisor that has claimed the folder. The pid is 0 when
// there is none, even if a stale pid file exists.
func Running(dir string) (pid int, control string, err error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, "", nil
	} else if err != nil {
		return 0, "", fmt.Errorf("open the run folder's lock: %w", err)
	}
	defer lock.Close() // which also releases the lock
	// A shared lock, so that two commands at the same time do not take each other for the supervisor.
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return 0, "", nil
	} else if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, "", fmt.Errorf("test the run folder's lock: %w", err)
	}
	text, pidErr := os.ReadFile(filepath.Join(dir, PIDFile))
	addr, addrErr := os.ReadFile(filepath.Join(dir, addressFile))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := errors.Join(pidErr, addrErr, convErr); err != nil {
		// The files are written just after the lock is taken, and removed just before it is released.
		return 0, "", fmt.Errorf("a stack is just starting or stopping in %s: try again (%w)", dir, err)
	}
	return pid, strings.TrimSpace(string(addr)), nil
}

// WriteFile replaces a file atomically, so that no process reads half of it.
func WriteFile(path, content string) error {
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
