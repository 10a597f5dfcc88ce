package machine

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestBusy(t *testing.T) {
	quiet := Activity{IdleBefore: 0.95, Others: 0.02, Steal: 0.01, Load: 1}
	for _, c := range []struct {
		name   string
		change func(*Activity)
		want   string
	}{
		{"quiet", func(*Activity) {}, ""},
		{"others at the bound", func(a *Activity) { a.Others = 0.10 }, ""},
		{"others", func(a *Activity) { a.Others = 0.11 }, "other processes used 11 %"},
		{"steal at the bound", func(a *Activity) { a.Steal = 0.05 }, ""},
		{"steal", func(a *Activity) { a.Steal = 0.06 }, "hypervisor took 6 %"},
		{"idle at the bound", func(a *Activity) { a.IdleBefore = 0.80 }, ""},
		{"not idle before", func(a *Activity) { a.IdleBefore = 0.79 }, "79 % idle before"},
		{"nothing known", func(a *Activity) { *a = Activity{Unknown, Unknown, Unknown, Unknown} }, ""},
		{"a high load average, which the stack itself causes", func(a *Activity) { a.Load = 50 }, ""},
	} {
		a := quiet
		c.change(&a)
		if got := a.Busy(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestParseCounters(t *testing.T) {
	s, err := parseCounters("cpu  100 20 30 400 50 6 7 80 9 0\ncpu0 1 2 3\n")
	want := sample{idle: 4500 * time.Millisecond, steal: 800 * time.Millisecond, total: 6930 * time.Millisecond, processes: 1500 * time.Millisecond}
	if err != nil || s != want {
		t.Errorf("got %+v (%v), want %+v", s, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h i"} {
		if _, err := parseCounters(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseStat(t *testing.T) {
	p, err := parseStat("42 (nginx: w (x) y) S 7 42 42 0 -1 4194560 100 0 0 0 150 250 10 20 20 0 1 0 1000 1000000 500\n")
	if want := (process{42, 7, 4300 * time.Millisecond}); err != nil || p != want {
		t.Errorf("got %+v (%v), want %+v", p, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 7", "42 (x) S 7 1 1 1 1 1 1 1 1 1 a 2 3 4 5"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// All descendants of the roots are added up, and a root inside another root's tree is counted once.
func TestTreeCPU(t *testing.T) {
	all := []process{{1, 0, 1000}, {10, 1, 1}, {11, 10, 2}, {12, 11, 4}, {20, 1, 8}, {21, 20, 16}}
	for _, c := range []struct {
		roots []int
		want  time.Duration
	}{{[]int{10}, 7}, {[]int{10, 12}, 7}, {[]int{10, 20}, 31}, {[]int{12}, 4}, {[]int{99, 20}, 24}} {
		if got, err := treeCPU(all, c.roots); err != nil || got != c.want {
			t.Errorf("%v: got %d (%v), want %d", c.roots, got, err, c.want)
		}
	}
	if _, err := treeCPU(all, []int{99}); err == nil {
		t.Error("no error for a process that is not running")
	}
}

// The CPU time of this process does not count as that of others.
func TestOwnCPUIsNotOthers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /proc")
	}
	m := Begin(t.Context(), []int{os.Getpid()}, 0)
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
	}
	a := m.End()
	if a.Others == Unknown || a.Steal == Unknown || a.Load == Unknown || a.IdleBefore == Unknown {
		t.Errorf("unknown values: %+v", a)
	}
	without := Meter{trees: []int{os.Getpid()}, began: m.began, known: true}
	without.began.ours -= time.Hour // as if this process had used more CPU time
	if got := without.End().Others; got != 0 {
		t.Errorf("own CPU time counts as that of others: %v", got)
	}
	if parent, err := Parent(os.Getpid()); err != nil || parent != os.Getppid() {
		t.Errorf("got parent %d (%v), want %d", parent, err, os.Getppid())
	}
}

func TestProcessCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has the clock")
	}
	before, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
	}
	after, err := ProcessCPU(os.Getpid())
	ticks, treeErr := TreeCPU(os.Getpid())
	if err != nil || treeErr != nil || after <= before || ticks-after > 50*time.Millisecond || after-ticks > 50*time.Millisecond {
		t.Errorf("%v, then %v (%v); in ticks %v (%v)", before, after, err, ticks, treeErr)
	}
	if _, err := ProcessCPU(1<<22 + 1); err == nil {
		t.Error("no error for a process that is not running")
	}
}
