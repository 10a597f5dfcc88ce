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
)

// Config is a pointer to a configuration that embeds Common.
type Config[C any] interface {
	*C
	common() *Common
}

// ExitConfig is the exit code for a configuration that cannot work: EX_CONFIG of sysexits.h. It is
// not 2, which is how Go ends a program that panics.
const ExitConfig = 78

// Main runs a process: it reads the configuration, runs until SIGINT, SIGTERM or SIGHUP and returns
// the exit code: 0 after an orderly stop, 1 for a failure, ExitConfig. A SIGINT or SIGTERM during
// the stop ends the process at once. A configuration with a method LogTo gets the logger before run.
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

	ctx, stop := untilStopped()
	defer stop()
	if err := run(ctx, cfg); err != nil {
		common.Logger.Error("stopped", "err", err)
		return 1
	}
	return 0
}

// untilStopped returns a context that is done at the first SIGINT, SIGTERM or SIGHUP. After that
// SIGINT and SIGTERM have their default action again. SIGHUP does not: a terminal that is closed
// sends it several times (from the kernel and from the shell), and only the first means something.
func untilStopped() (context.Context, context.CancelFunc) {
	hangup, stopHangup := context.Background(), context.CancelFunc(func() {})
	if !signal.Ignored(syscall.SIGHUP) { // else started with nohup
		hangup, stopHangup = signal.NotifyContext(hangup, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(hangup, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, func() {
		stop()
		stopHangup()
	}
}
