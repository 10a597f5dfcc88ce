package cli

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/suite"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("--full --yes --only latency,bytes --duration 5s --connections 8 --rate 100 --posts 1000 --out /tmp/x"))
	if err != nil {
		t.Fatal(err)
	}
	want := suite.Options{Full: true, Only: []string{"latency", "bytes"}, Duration: 5 * time.Second, Connections: 8, Rate: 100, Posts: 1000}
	if o.Full != want.Full || !slices.Equal(o.Only, want.Only) || o.Duration != want.Duration || o.Connections != want.Connections || o.Rate != want.Rate || o.Posts != want.Posts || o.folder != "/tmp/x" || !o.yes {
		t.Errorf("got %+v", o)
	}
	for args, why := range map[string]string{
		"--quick --full":                "choose one",
		"--publish":                     "only a complete run with --full",
		"--publish --full --only bytes": "only a complete run with --full",
		"--publish --full --posts 5":    "only a complete run with --full",
		"--only nothing":                `no part "nothing": use memory, throughput`,
		"--posts -1":                    "--posts -1: use a number from 1",
		"--posts x":                     "-posts",
		"--rate 99999999":               "--rate 99999999",
		"--connections -5":              "--connections -5",
		"--connections 0":               "above zero",
		"--posts 0":                     "above zero",
		"--duration 5":                  "duration",
		"--duration -5s":                "--duration -5s",
		"--nonsense":                    "nonsense",
		"quick":                         `unexpected argument "quick"`,
	} {
		if _, err := parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %v, want it to say %q", args, err, why)
		}
	}
}

func TestCommandLine(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main([]string{"--help"}, os.Getenv, nil, &out, &errs); code != 0 || !strings.Contains(out.String(), "--only NAME") || !strings.Contains(out.String(), "throughput") || strings.Contains(out.String(), "%!") {
		t.Errorf("--help: %d\n%s", code, out.String())
	}
	if code := Main([]string{"--nonsense"}, os.Getenv, nil, &out, &errs); code != 2 || !strings.HasPrefix(errs.String(), "error: ") {
		t.Errorf("--nonsense: %d %s", code, errs.String())
	}
}

func TestMenu(t *testing.T) {
	for typed, want := range map[string]options{
		"\n":         {},
		"1\n":        {},
		"2\n":        {Options: suite.Options{Full: true}},
		"4\n":        {Options: suite.Options{Only: []string{suite.Throughput}}},
		"nine\n 2\n": {Options: suite.Options{Full: true}},
	} {
		var out bytes.Buffer
		b := &benchmark{in: bufio.NewReader(strings.NewReader(typed)), out: &out}
		if !b.menu() || b.Full != want.Full || !slices.Equal(b.Only, want.Only) {
			t.Errorf("%q: got %+v, want %+v", typed, b.options, want)
		}
		if strings.HasPrefix(typed, "nine") && !strings.Contains(out.String(), "Type a number from 1 to 15.") {
			t.Errorf("%q: %s", typed, out.String())
		}
	}
	for _, typed := range []string{"q\n", "", "99"} {
		b := &benchmark{in: bufio.NewReader(strings.NewReader(typed)), out: new(bytes.Buffer)}
		if b.menu() {
			t.Errorf("%q: the menu did not quit", typed)
		}
	}
}

func TestAsks(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "--interactive": true, "--interactive --yes": false, "--interactive --quick": false, "--interactive --full": false,
		"--interactive --only bytes": false, "--interactive --posts 5": true,
	} {
		o, err := parse(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if b := (&benchmark{options: o}); b.asks() != want {
			t.Errorf("%q: asks %v, want %v", args, b.asks(), want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		args string
		full bool
		only string
		want string
	}{
		{"--interactive --posts 5", false, "", "benchmark/run_benchmark.sh --posts 5"},
		{"--interactive", true, "", "benchmark/run_benchmark.sh --full"},
		{"--full --yes", true, "", "benchmark/run_benchmark.sh --full --yes"},
		{"--interactive", false, "bytes", "benchmark/run_benchmark.sh --only bytes"},
		{"--only=bytes", false, "bytes", "benchmark/run_benchmark.sh --only=bytes"},
	} {
		b := &benchmark{args: strings.Fields(c.args)}
		b.Full = c.full
		if c.only != "" {
			b.Only = []string{c.only}
		}
		if got := b.command(); got != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	stale, other := filepath.Join(dir, "page-stale.svg"), filepath.Join(dir, "other-plot.svg")
	for _, path := range []string{stale, other} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := &benchmark{}
	r := &report.Report{Mode: "quick", Pipelined: []report.Lane{{Name: report.LaneFast, Via: report.ViaDirect, Depth: 16, Rates: []float64{1}}}}
	if err := b.write(r, dir, "page"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "page.md"))
	if err != nil || !strings.Contains(string(page), "(page-pipelining.svg)") {
		t.Errorf("the page (%v):\n%s", err, page)
	}
	if _, err := os.Stat(filepath.Join(dir, "page-pipelining.svg")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plot of an earlier report is still there: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a plot of another report is gone: %v", err)
	}
}

// Publishing replaces the committed report and the table in the README, and nothing else.
func TestPublished(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("README.md", []byte("before\n<!-- benchmark: the claims -->\nstale\n<!-- benchmark: end -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	b := &benchmark{out: &out}
	if err := b.published(&report.Report{Mode: "full"}); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil || strings.Contains(string(readme), "stale") || !strings.Contains(string(readme), "| not measured |") || !strings.HasSuffix(string(readme), "\nafter\n") {
		t.Errorf("the README (%v):\n%s", err, readme)
	}
	if _, err := os.Stat("benchmark/benchmark-report.md"); err != nil {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, false, time.Minute)
	p.Part("a part")
	p.Step("a step", 10*time.Second)
	p.Say("%d of %d", 1, 2)
	p.close()
	if got, want := out.String(), "\na part\n  1 of 2\n"; got != want {
		t.Errorf("without a terminal: %q, want %q", got, want)
	}
	out.Reset()
	p = newProgress(&out, true, time.Minute)
	p.stop() // redraws come from the test
	p.Step("one", 20*time.Second)
	p.draw(p.began.Add(5 * time.Second))
	p.Step("two", 20*time.Second)
	p.draw(p.began.Add(time.Hour)) // a step that takes too long does not shorten the time of the others
	p.Say("done")
	p.close()
	for _, want := range []string{"one ... about 1m0s left", "one ... about 55s left", "two ... about 40s left", "two ... about 20s left", "\r\x1b[K  done\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}
