// Package cli is the benchmark as a person meets it: options, menu, progress, files.
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

// options are what the command line says.
type options struct {
	suite.Options
	yes, interactive, quick, remove, readme bool
	folder                                  string
}

const usage = `usage: run_benchmark.sh [options]
Measures the stack that runs, and writes benchmark/benchmark-report.md with plots beside it.

  --quick            about a minute (the default without a terminal)
  --full             about a quarter of an hour, 1,000,000 posts
  --only NAME        one part, or some with commas between them:
                     %s
  --yes              ask nothing
  --duration 5s      of one measurement
  --connections N    of closed-loop load, and at most at a constant rate (default 64)
  --rate N           reads a second where the rate is constant (default: 10, 50 and 80 %% of the maximum
                     for latency, 2000 beside writes and faults)
  --posts N          posts to load (default 100000; 1000000 in full)
  --out DIR          folder of the report (default benchmark)
  --remove           delete the posts that the benchmark has loaded, and measure nothing
  --readme           copy the table of claims from the report into README.md, and measure nothing

The posts (ids bench-...) stay after a run, so that the next one need not load them. Other posts are
not touched. Addresses are those of make start: WRITER_PORT, DIRECT_PORT, GATEWAY_PORT, DASHBOARD_PORT.
`

// errHelp asks for the usage.
var errHelp = errors.New("help requested")

func parse(args []string) (options, error) {
	var o options
	var only string
	fs := flag.NewFlagSet("run_benchmark.sh", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // what there is to say is returned
	fs.BoolVar(&o.quick, "quick", false, "")
	fs.BoolVar(&o.Full, "full", false, "")
	fs.BoolVar(&o.yes, "yes", false, "")
	fs.BoolVar(&o.interactive, "interactive", false, "") // run_benchmark.sh says so on a terminal
	fs.BoolVar(&o.remove, "remove", false, "")
	fs.BoolVar(&o.readme, "readme", false, "")
	fs.StringVar(&only, "only", "", "")
	fs.StringVar(&o.folder, "out", "benchmark", "")
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
	for name := range strings.SplitSeq(only, ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.Only = append(o.Only, name)
		}
	}
	return o, o.Validate()
}

// Main runs the benchmark in the repository's folder and returns the exit code: 0 when it is done, 1
// when something failed or a read did, 2 for a command line that cannot work, 130 after Ctrl-C.
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
	context.AfterFunc(ctx, stop) // a second signal meets the default action
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
	const name = "benchmark-report"
	if b.readme {
		return 0, report.CopyHeadline(filepath.Join(b.folder, name+".md"), "README.md")
	}
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
	b.say("Measuring the %s stack, for about %v. Ctrl-C ends it and keeps what it has.", runtime.Name(), suite.Estimate(b.Options, b.failsOver).Round(time.Second))
	p := newProgress(b.out, b.interactive, suite.Estimate(b.Options, b.failsOver))
	r, err := suite.Run(ctx, b.Options, addresses, runtime, p)
	p.close()
	var wrong *load.WrongError
	if errors.As(err, &wrong) {
		return 0, fmt.Errorf("%w\nNothing of this run counts, and no report was written. If somebody has changed posts bench-...: --remove, then run again", err)
	} else if err != nil {
		return 0, err
	}
	r.Command = b.command()
	file := name
	if r.Partial != "" {
		file += ".partial" // it does not take the place of a whole one
	}
	if err := b.write(r, file); err != nil {
		return 0, err
	}
	b.say("")
	for _, c := range r.Claims() {
		if c.Known {
			b.say("%-3s  %s: %s", map[bool]string{true: "yes", false: "NO"}[c.Holds], c.Claim, c.Measured)
		}
	}
	b.say("\nThe report is %s. The posts (ids bench-...) stay for the next run; --remove deletes them.", filepath.Join(b.folder, file+".md"))
	if r.Partial != "" {
		b.say("It is partial: %s.", r.Partial)
	}
	switch {
	case len(r.Broken()) > 0:
		return 0, fmt.Errorf("what must not happen did: %s", strings.Join(r.Broken(), "; "))
	case ctx.Err() != nil:
		return 130, nil
	}
	return 0, nil
}

// writable reports, before anything is measured, a folder that the report cannot be written to.
func (b *benchmark) writable() error {
	if err := os.MkdirAll(b.folder, 0o755); err != nil {
		return fmt.Errorf("make the folder of the report: %w", err)
	}
	probe, err := os.CreateTemp(b.folder, ".report-*")
	if err != nil {
		return fmt.Errorf("write to the folder of the report: %w", err)
	}
	_ = probe.Close()
	return os.Remove(probe.Name())
}

// asks reports whether there is something to ask, and somebody.
func (b *benchmark) asks() bool {
	return b.interactive && !b.yes && !b.quick && !b.Full && len(b.Only) == 0
}

// menu lets a person choose. It returns false to do nothing.
func (b *benchmark) menu() bool {
	quick, full := b.Options, b.Options
	full.Full = true
	b.say("This loads posts into the stack that runs, reads them in several ways, kills a reader and")
	b.say("Redis (its primary, where another server takes over), brings them back, and writes a report to %s.\n", b.folder)
	b.say("  1  quick, about %v", suite.Estimate(quick, b.failsOver).Round(10*time.Second))
	b.say("  2  full, about %v, %d posts", suite.Estimate(full, b.failsOver).Round(time.Minute), suite.Posts(full))
	titles := suite.Titles()
	for i, t := range titles {
		b.say("  %d  only %s", i+3, t[1])
	}
	for {
		fmt.Fprint(b.out, "Which? [1, q to quit] ")
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

// command returns what to type to repeat the run, with what was chosen in the menu.
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

// lacks reports whether a flag is not among the arguments.
func (b *benchmark) lacks(name string) bool {
	for _, a := range b.args {
		if flag, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "="); flag == name {
			return false
		}
	}
	return true
}

// write writes the page and its plots. The page comes last: what is there is whole.
func (b *benchmark) write(r *report.Report, file string) error {
	plots, err := r.Plots()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.folder, 0o755); err != nil {
		return fmt.Errorf("make the folder of the report: %w", err)
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(b.folder, file+"-"+name+".svg"), svg, 0o644); err != nil {
			return fmt.Errorf("write a plot: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.folder, file+".md"), []byte(r.Markdown(file+"-")), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
