package snapfile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// The environment of a test process that is killed while it saves.
const (
	killPath = "SNAPFILE_KILL_PATH"
	killAt   = "SNAPFILE_KILL_AT"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killPath); path != "" {
		saveAndDie(path)
		return
	}
	os.Exit(m.Run())
}

// killer kills the process before the operation with this number.
type killer struct {
	output
	left int
}

func (k *killer) step() {
	if k.left--; k.left < 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}

func (k *killer) Write(b []byte) (int, error) {
	if k.left == 0 { // half of it is written
		_, _ = k.output.Write(b[:len(b)/2])
	}
	k.step()
	return k.output.Write(b)
}

func (k *killer) Sync() error  { k.step(); return k.output.Sync() }
func (k *killer) Close() error { k.step(); return k.output.Close() }

func saveAndDie(path string) {
	left, _ := strconv.Atoi(os.Getenv(killAt))
	release, err := Lock(path)
	if err != nil {
		panic(err)
	}
	defer release()
	w, err := Create(path, testHeader, 1<<30)
	if err != nil {
		panic(err)
	}
	w.file = &killer{w.file, left}
	for _, e := range entries(50) {
		if err := w.Add([]byte(e.Key), e.Value, e.Version); err != nil {
			panic(err)
		}
	}
	if _, err := w.Commit(testAhead, true); err != nil {
		panic(err)
	}
	fmt.Println("committed")
}

// A process that is killed while it saves, at every write, leaves the old file, and the next process saves again.
func TestKilledWhileSaving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	old := entries(20)
	for at := 0; ; at++ {
		save(t, path, testHeader, old)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killPath+"="+path, fmt.Sprint(killAt, "=", at))
		out, err := child.CombinedOutput()
		_, got := load(t, path)
		if err == nil {
			if !slices.Equal(got, entries(50)) || at < 5 {
				t.Errorf("after the save, which took %d steps, the file has %d entries", at, len(got))
			}
			return
		}
		if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("%v: %s", err, out)
		}
		if !slices.Equal(got, old) {
			t.Fatalf("killed at step %d: the file has %d entries, want the old %d", at, len(got), len(old))
		}
		release, err := Lock(path)
		if err != nil {
			t.Fatalf("killed at step %d: %v", at, err)
		}
		release()
	}
}
