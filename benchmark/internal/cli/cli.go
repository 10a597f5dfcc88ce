// Package cli is the user interface of the benchmark: options, menu, progress and files.
package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/suite"
	"heavy-read-api/benchmark/internal/target"
)

// options are the options of the command line.
type options struct {
	suite.Options
	yes, interactive, quick, remove, publish bool
	folder                                   string // folder of the report
}

const (
	name      = "benchmark-report"
	results   = "benchmark/results" // ignored by git
	committed = "benchmark"         // folder of the report that is committed
)

const usage = `usage: run_benchmark.sh [options]
Measures the running stack and writes a report with plots to benchmark/results, which git ignores.

  --quick            less than three minutes (the default without a terminal)
  --full             about a quarter of an hour, with 1,000,000 posts
  --only NAME        run one part, or several separated by commas:
                     %s
  --yes              do not show the menu
  --publish          with --full: replace the committed report (benchmark/benchmark-report.md and its
                     plots) and the table in README.md
  --duration 5s      duration of each measurement
  --connections N    connections of a closed loop, and their maximum at a constant rate (default 64)
  --rate N           reads per second at a constant rate (default: 1000, and the highest rate with p99
                     below 5 ms, in the part latency; 2000 during writes and faults)
  --posts N          posts to import (default 100000; 1000000 with --full)
  --out DIR          folder of the report (default benchmark/results)
  --remove           delete the benchmark's posts and exit

The posts (ids bench-...) stay after a run, so that the next run need not import them. Other posts are
not touched. Addresses are those of make start: WRITER_PORT, DIRECT_PORT, GATEWAY_PORT, DASHBOARD_PORT.
`

// errHelp reports --help.
var errHelp = errors.New("help requested")

func parse(args []string) (options, error) {
	var o options
	var only string
	fs := flag.NewFlagSet("run_benchmark.sh", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are returned
	fs.BoolVar(&o.quick, "quick", false, "")
	fs.BoolVar(&o.Full, "full", false, "")
	fs.BoolVar(&o.yes, "yes", false, "")
	fs.BoolVar(&o.interactive, "interactive", false, "") // run_benchmark.sh passes it on a terminal
	fs.BoolVar(&o.remove, "remove", false, "")
	fs.BoolVar(&o.publish, "publish", false, "")
	fs.StringVar(&only, "only", "", "")
	fs.StringVar(&o.folder, "out", results, "")
	fs.DurationVar(&o.Duration, "duration", 0, "")
	fs.IntVar(&o.Connections, "connections", 0, "")
	fs.IntVar(&o.Rate, "rate", 0, "")
	fs.IntVar(&o.Posts, "posts", 0, "")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, errHelp
	} else if err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: see --help", fs.Arg(0))
	}
	var zero string
	fs.Visit(func(f *flag.Flag) {
		if f.Value.String() == "0" {
			zero = f.Name
		}
	})
	if zero != "" {
		return o, fmt.Errorf("--%s 0: use a number above zero", zero)
	}
	if o.quick && o.Full {
		return o, errors.New("--quick and --full: choose one")
	}
	if o.publish && (!o.Full || only != "" || o.Posts > 0 || o.Duration > 0) {
		return o, errors.New("--publish: only a complete run with --full can be published")
	}
	for name := range strings.SplitSeq(only, ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.Only = append(o.Only, name)
		}
	}
	return o, o.Validate()
}

// Main runs the benchmark in the repository's folder and returns the exit code: 0 for success, 1 when a part or
// a read failed, 2 for an invalid command line, 130 after Ctrl-C.
func Main(args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if errors.Is(err, errHelp) {
		fmt.Fprintf(stdout, usage, strings.Join(suite.Names(), ", "))
		return 0
	} else if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	b := &benchmark{options: o, getenv: getenv, in: bufio.NewReader(stdin), out: stdout, args: args}
	code, err := b.run(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	return code
}

type benchmark struct {
	options
	getenv func(string) string
	in     *bufio.Reader
	out    io.Writer
	args   []string

	failsOver bool // another server takes over when Redis fails
}

func (b *benchmark) say(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

func (b *benchmark) run(ctx context.Context) (int, error) {
	addresses, err := target.ParseAddresses(b.getenv)
	if err != nil {
		return 0, err
	}
	runtime, addresses, err := target.Detect(ctx, ".", addresses)
	if err != nil {
		return 0, err
	}
	if err := target.Check(ctx, addresses, runtime); err != nil {
		return 0, err
	}
	if b.remove {
		n, err := suite.Remove(ctx, addresses)
		if err == nil {
			b.say("Deleted %s posts of the benchmark.", report.Thousands(float64(n)))
		}
		return 0, err
	}
	if _, err := exec.LookPath("wrk"); err != nil {
		return 0, errors.New("wrk is missing: apt-get install wrk, or brew install wrk")
	}
	_, err = runtime.Primary(ctx)
	b.failsOver = !errors.Is(err, target.ErrNoFailover)
	if b.asks() {
		if goOn := b.menu(); !goOn {
			return 0, nil
		}
	}
	if err := b.writable(); err != nil {
		return 0, err
	}
	b.say("Measuring the %s stack, for about %v. Ctrl-C ends the run and keeps its results.", runtime.Name(), suite.Estimate(b.Options, b.failsOver).Round(time.Second))
	p := newProgress(b.out, b.interactive, suite.Estimate(b.Options, b.failsOver))
	r, failed := suite.Run(ctx, b.Options, addresses, runtime, p)
	p.close()
	if r == nil {
		return 0, failed
	}
	r.Command = b.command()
	file := name
	if r.Partial != "" || len(r.Failed) > 0 {
		file += ".partial" // does not replace a complete report
	}
	if err := b.write(r, b.folder, file); err != nil {
		return 0, errors.Join(failed, err)
	}
	b.say("")
	for _, c := range r.Claims() {
		if c.Verdict != report.NotMeasured {
			b.say("%-12s  %s: %s", c.Verdict, c.Claim, c.Measured)
		}
	}
	b.say("\nThe report is in %s. The posts (ids bench-...) stay for the next run; --remove deletes them.", filepath.Join(b.folder, file+".md"))
	if r.Partial != "" {
		b.say("It is partial: %s.", r.Partial)
	}
	var wrong *load.WrongError
	switch {
	case errors.As(failed, &wrong) && !wrong.Failed:
		return 0, fmt.Errorf("%w\nThe report contains what was measured before the wrong answer. If something else changed the posts bench-..., delete them with --remove and run the benchmark again", failed)
	case failed != nil:
		return 0, failed
	case len(r.Broken()) > 0:
		return 0, fmt.Errorf("a promise was broken: %s", strings.Join(r.Broken(), "; "))
	case ctx.Err() != nil:
		return 130, nil
	case b.publish && r.Partial != "":
		return 0, errors.New("a partial report is not published")
	case b.publish:
		return 0, b.published(r)
	}
	return 0, nil
}

// published replaces the committed report and the table in the README.
func (b *benchmark) published(r *report.Report) error {
	if err := b.write(r, committed, name); err != nil {
		return err
	}
	if err := report.CopyHeadline(filepath.Join(committed, name+".md"), "README.md", committed); err != nil {
		return err
	}
	b.say("%s and the table in README.md were replaced.", filepath.Join(committed, name+".md"))
	return nil
}

// writable returns an error when the report cannot be written, before anything is measured.
func (b *benchmark) writable() error {
	if err := os.MkdirAll(b.folder, 0o755); err != nil {
		return fmt.Errorf("create the folder of the report: %w", err)
	}
	probe, err := os.CreateTemp(b.folder, ".report-*")
	if err != nil {
		return fmt.Errorf("write to the folder of the report: %w", err)
	}
	_ = probe.Close()
	return os.Remove(probe.Name())
}

// asks reports whether the menu is shown.
func (b *benchmark) asks() bool {
	return b.interactive && !b.yes && !b.quick && !b.Full && len(b.Only) == 0
}

// menu lets the user choose what to measure. It returns false when the user quits.
func (b *benchmark) menu() bool {
	quick, full := b.Options, b.Options
	full.Full = true
	b.say("The benchmark imports posts into the running stack, reads them in several ways, kills and restarts")
	b.say("a reader and Redis (or its primary, where another server takes over), and writes a report to %s.\n", b.folder)
	b.say("  1  quick, about %v", suite.Estimate(quick, b.failsOver).Round(10*time.Second))
	b.say("  2  full, about %v, %d posts", suite.Estimate(full, b.failsOver).Round(time.Minute), suite.Posts(full))
	titles := suite.Titles()
	for i, t := range titles {
		b.say("  %d  only %s", i+3, t[1])
	}
	for {
		fmt.Fprint(b.out, "Choice [1, q to quit]: ")
		line, err := b.in.ReadString('\n')
		choice := strings.TrimSpace(line)
		n, bad := strconv.Atoi(choice)
		switch {
		case choice == "q" || err != nil && choice == "":
			return false
		case choice == "" || choice == "1":
			return true
		case choice == "2":
			b.Full = true
			return true
		case bad == nil && n >= 3 && n < 3+len(titles):
			b.Only = []string{titles[n-3][0]}
			return true
		}
		if err != nil {
			return false
		}
		b.say("Type a number from 1 to %d.", 2+len(titles))
	}
}

// command returns the command line that repeats the run, including the choice of the menu.
func (b *benchmark) command() string {
	parts := []string{"benchmark/run_benchmark.sh"}
	for _, a := range b.args {
		if a != "--interactive" {
			parts = append(parts, a)
		}
	}
	if b.lacks("full") && b.Full {
		parts = append(parts, "--full")
	}
	if b.lacks("only") && len(b.Only) > 0 {
		parts = append(parts, "--only", strings.Join(b.Only, ","))
	}
	return strings.Join(parts, " ")
}

// lacks reports whether the arguments do not contain a flag.
func (b *benchmark) lacks(name string) bool {
	for _, a := range b.args {
		if flag, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); flag == name {
			return false
		}
	}
	return true
}

// write writes the page and its plots, and deletes the plots of an earlier report. It writes the page last, so that
// the plots of a page always exist.
func (b *benchmark) write(r *report.Report, folder, file string) error {
	plots, err := r.Plots()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("create the folder of the report: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(folder, file+"-*.svg"))
	if err != nil {
		return fmt.Errorf("find the plots of an earlier report: %w", err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("delete a plot of an earlier report: %w", err)
		}
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(folder, file+"-"+name+".svg"), svg, 0o644); err != nil {
			return fmt.Errorf("write a plot: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, file+".md"), []byte(r.Markdown(file+"-")), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
