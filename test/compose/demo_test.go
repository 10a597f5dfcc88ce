//go:build compose

package compose

import (
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outcomes are the lines that make demo prints for its steps.
var outcomes = []string{
	`reader-2 was killed \(docker kill\); back after`, `reader-1 was frozen for 5 s \(docker pause\); ready again after`,
	`reader-3 was cut off from Redis for 5 s \(docker network disconnect\); ready again after`,
	`redis-1 was killed \(docker kill\); back after`, `redis-1 was frozen for 5 s \(docker pause\); ready again after`,
	`readers in rotation: 3 → 4; done after`, `readers in rotation: 4 → 3; done after`,
}

// checkDemo runs the demo on the running stack, as a visitor does.
func checkDemo(t *testing.T) {
	out := run(t, "make", "demo")
	t.Log("\n" + out)
	for _, step := range outcomes {
		line := regexp.MustCompile(`(?m)^ok   \d\d:\d\d:\d\d .*` + step + ` [\d.]+ s; the readers' digests are identical; 0 of [\d,]+ reads failed$`)
		if !line.MatchString(out) {
			t.Errorf("no line %s", line)
		}
	}
	contains(t, out, "7 of 7 outcomes are good. 0 of ")
	for _, mark := range []string{"BAD ", "??  ", "error:", "warning:"} {
		if strings.Contains(out, mark) {
			t.Errorf("the demo prints %q", mark)
		}
	}
	// The stack is as it was.
	now(t, inRotation(3))
	eventually(t, 20*time.Second, converged)
	eventually(t, 30*time.Second, auditorCompares(4))
	eventually(t, 30*time.Second, pageHasOutcome("reader-2"))
}

var loadSummary = regexp.MustCompile(`(?m)^The load ran for \d+s: 0 of [\d,]*[1-9][\d,]* reads failed\.$`)

// checkLoad presses Ctrl-C during make load: a terminal sends SIGINT to make and to the program.
func checkLoad(t *testing.T) {
	cmd := exec.CommandContext(testContext, "make", "load", "LOAD_READS=300")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = killWait
	var out output
	cmd.Stdout, cmd.Stderr = &out, io.Writer(&out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	reads := regexp.MustCompile(`(?m) (2[5-9]\d|3[0-4]\d) reads/s; 0 of [\d,]+ reads failed$`)
	eventually(t, 30*time.Second, func() error {
		if !reads.MatchString(out.String()) {
			return fmt.Errorf("no line with about 300 reads/s:\n%s", out.String())
		}
		return nil
	})
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Logf("%v:\n%s", err, out.String())
	case <-time.After(killWait):
		t.Fatalf("make load goes on after SIGINT:\n%s", out.String())
	}
	if !loadSummary.MatchString(out.String()) || strings.Contains(out.String(), "error:") {
		t.Errorf("make load ends without a summary:\n%s", out.String())
	}
}
