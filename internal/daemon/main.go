package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"heavy-read-api/internal/buildinfo"
)

// Config is a pointer to a configuration that embeds Common.
type Config[C any] interface {
	*C
	common() *Common
}

// ExitConfig is the exit code for an invalid configuration: EX_CONFIG of sysexits.h. It differs from 2,
// the exit code of a Go program that panics.
const ExitConfig = 78

// Main runs a process: it parses the configuration, runs until SIGINT, SIGTERM or SIGHUP, and returns the
// exit code: 0 after an orderly stop, ExitConfig for an invalid configuration, 1 for any other failure. A
// second SIGINT or SIGTERM, during the stop, ends the process at once. If the configuration has a method
// LogTo, Main passes it the logger before run.
func Main[C any, P Config[C]](
	args []string, getenv func(string) string, stderr io.Writer,
	parse func(args []string, getenv func(string) string) (C, error),
	run func(ctx context.Context, cfg C) error,
) int {
	cfg, err := parse(args, getenv)
	var help *HelpError
	switch {
	case errors.As(err, &help):
		fmt.Fprint(stderr, help.Text)
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "error:", err)
		return ExitConfig
	}
	common := P(&cfg).common()
	if common.Probe {
		state, err := probe(common, probeTimeout)
		if err != nil {
			fmt.Fprintln(stderr, "not ready:", err)
			return 1
		}
		fmt.Fprintln(stderr, state)
		return 0
	}
	common.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: common.LogLevel}))
	if l, ok := any(&cfg).(interface{ LogTo(*slog.Logger) }); ok {
		l.LogTo(common.Logger)
	}
	build := buildinfo.Read()
	common.Logger.Info("starting", "version", build.Version, "revision", build.Revision, "go", build.GoVersion)
	limitMemory(common.Logger)
	stopProfiles, err := common.serveProfiles()
	if err != nil {
		common.Logger.Error("stopped", "err", err)
		return 1
	}
	defer stopProfiles()

	ctx, stop := untilStopped()
	defer stop()
	if err := run(ctx, cfg); err != nil {
		common.Logger.Error("stopped", "err", err)
		return 1
	}
	return 0
}

// untilStopped returns a context that is canceled by the first SIGINT, SIGTERM or SIGHUP. From then on
// SIGINT and SIGTERM have their default action again. SIGHUP stays caught: closing a terminal sends it more
// than once (from the kernel and from the shell), and the second one must not kill a process that drains.
func untilStopped() (context.Context, context.CancelFunc) {
	hangup, stopHangup := context.Background(), context.CancelFunc(func() {})
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		hangup, stopHangup = signal.NotifyContext(hangup, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(hangup, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, func() {
		stop()
		stopHangup()
	}
}
