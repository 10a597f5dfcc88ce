//go:build compose

package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/test/compose/internal/progress"
)

const (
	killWait = 10 * time.Second
	tail     = 30 // lines of a command's output in an error
)

// run runs a command in the repository's folder and returns its standard output. The test fails when the command does.
func run(t testing.TB, args ...string) string {
	t.Helper()
	stdout, err := try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout
}

// refused runs a command that must fail, and returns everything that it printed.
func refused(t testing.TB, args ...string) string {
	t.Helper()
	var all output
	if err := execute(testContext, args, "", &all, &all); err == nil {
		t.Fatalf("%s succeeded:\n%s", strings.Join(args, " "), all.String())
	}
	if testContext.Err() != nil {
		t.Fatal(context.Cause(testContext))
	}
	return all.String()
}

// try runs a command and returns its standard output.
func try(args ...string) (string, error) { return tryContext(testContext, args...) }

func tryContext(ctx context.Context, args ...string) (string, error) {
	return tryWithInput(ctx, "", args...)
}

// tryWithInput runs a command on a standard input.
func tryWithInput(ctx context.Context, input string, args ...string) (string, error) {
	var stdout, all output
	err := execute(ctx, args, input, tee{&stdout, &all}, &all)
	if err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, all.tail())
	}
	return stdout.String(), nil
}

// combined runs a command and returns all that it printed, whether it succeeded or not.
func combined(args ...string) string {
	var all output
	if err := execute(testContext, args, "", &all, &all); err != nil {
		fmt.Fprintf(&all, "%v\n", err)
	}
	return all.String()
}

func execute(ctx context.Context, args []string, input string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// A new process group, all of which gets the signal when ctx ends: make does not forward signals.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killWait
	return progress.During(fmt.Sprintf("%.120s", strings.Join(args, " ")), cmd.Run)
}

// output collects what a command prints. The two streams of a command are written by two goroutines.
type output struct {
	mu     sync.Mutex // guards buffer
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// tail returns the last lines.
func (o *output) tail() string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tail):], "\n")
}

// tee writes to both.
type tee [2]*output

func (t tee) Write(p []byte) (int, error) {
	_, _ = t[0].Write(p)
	return t[1].Write(p)
}

// eventually polls until f returns nil. When that takes longer than limit, the test fails with f's last error.
func eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	const pause = 300 * time.Millisecond
	for deadline := time.Now().Add(limit); ; {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", limit, err)
		}
		select {
		case <-testContext.Done():
			t.Fatalf("%v: %v", context.Cause(testContext), err)
		case <-time.After(pause):
		}
	}
}

func contains(t testing.TB, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Fatalf("no %q in:\n%s", want, text)
	}
}

func lines(text string) []string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\r", "")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
