package machine

import (
	"os"
	"testing"
	"time"
)

func TestThreadWait(t *testing.T) {
	if wait, err := parseWait("492529 82074 3\n"); err != nil || wait != 82074*time.Nanosecond {
		t.Errorf("got %v (%v), want 82.074 us", wait, err)
	}
	if _, err := parseWait("492529\n"); err == nil {
		t.Error("no error for a field that is missing")
	}
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skipf("the kernel does not count waits: %v", err)
	}
	if _, err := ThreadWait(os.Getpid()); err != nil {
		t.Error(err)
	}
}
