// Package proctest starts and observes processes in tests.
package proctest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// StartSelf runs the calling test again in another process, after the shell command limits, such as "ulimit -n 100", and
// with env in its environment. It reads into fields what the process prints after "listening", on one line. The process must
// end when its standard input does, at the end of the test, and must not fail.
func StartSelf(t *testing.T, limits string, env []string, fields ...any) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	child := exec.Command("sh", "-c", fmt.Sprintf("%s && exec %q -test.run '^%s$'", limits, os.Args[0], name))
	child.Env = append(os.Environ(), env...)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the process of %s: %v", name, err)
		}
	})
	if _, err := fmt.Fscanf(out, "listening"+strings.Repeat(" %v", len(fields))+"\n", fields...); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

// Gone reports whether a process has ended; one that nobody has reaped yet has.
func Gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // there is no /proc, or the process ended after the check above
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}
