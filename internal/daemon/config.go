// Package daemon runs a process of the stack: it parses the configuration from the environment and the
// flags, sets up the logger, handles signals, serves Go profiles on request, and implements -health, the
// health check of a container.
package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"heavy-read-api/internal/buildinfo"
)

// Settings parses a configuration. Every setting is an environment variable (REDIS_ADDR) and a flag
// (-redis-addr); the flag wins. Register the settings, then call Parse.
type Settings struct {
	flags  *flag.FlagSet
	getenv func(string) string
	env    map[string]string // flag name -> environment variable

	version bool // -version was given
}

// NewSettings returns the settings of the named program, at first only -version. getenv is os.Getenv except in tests.
func NewSettings(program string, getenv func(string) string) *Settings {
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Parse returns the error or the usage
	s := &Settings{flags: fs, getenv: getenv, env: make(map[string]string)}
	s.Flag(&s.version, "version", "print the version and exit")
	return s
}

// flagName returns the name of the flag for env and registers env as its variable.
func (s *Settings) flagName(env string) string {
	name := strings.ToLower(strings.ReplaceAll(env, "_", "-"))
	s.env[name] = env
	return name
}

// String registers a string setting.
func (s *Settings) String(p *string, env, value, usage string) {
	s.flags.StringVar(p, s.flagName(env), value, usage)
}

// Bool registers a boolean setting that is false by default.
func (s *Settings) Bool(p *bool, env, usage string) {
	s.flags.BoolVar(p, s.flagName(env), false, usage)
}

// Int registers an integer setting.
func (s *Settings) Int(p *int, env string, value int, usage string) {
	*p = value
	s.flags.Var(number{p, "it must be a whole number"}, s.flagName(env), usage)
}

// Number registers an integer setting with a range, which is named in the error for text that is not a number. The
// caller checks the range, because it knows the reason for it.
func (s *Settings) Number(p *int, env string, value, least, most int, usage string) {
	*p = value
	s.flags.Var(number{p, fmt.Sprintf("it must be a number between %d and %d", least, most)}, s.flagName(env), usage)
}

// number is the value of an integer setting, with the error for text that is not a number.
type number struct {
	p    *int
	rule string
}

// String returns the number, or "" for the zero value, which package flag creates.
func (n number) String() string {
	if n.p == nil {
		return ""
	}
	return strconv.Itoa(*n.p)
}

func (n number) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil {
		return errors.New(n.rule)
	}
	*n.p = v
	return nil
}

// Int64 registers a 64-bit integer setting.
func (s *Settings) Int64(p *int64, env string, value int64, usage string) {
	s.flags.Int64Var(p, s.flagName(env), value, usage)
}

// Duration registers a time span, such as 90s or 24h.
func (s *Settings) Duration(p *time.Duration, env string, value time.Duration, usage string) {
	*p = value
	s.flags.Func(s.flagName(env), fmt.Sprintf("%s, such as 90s or 24h (default %v)", usage, value), func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return errors.New("write a positive number with a unit, such as 90s, 5m or 24h")
		}
		*p = d
		return nil
	})
}

// Bytes registers a size: a number of bytes, optionally with a unit such as 512MB (10^6) or 1GiB (2^30).
func (s *Settings) Bytes(p *int64, env string, value int64, usage string) {
	*p = value
	s.flags.Func(s.flagName(env), fmt.Sprintf("%s, in bytes or with a unit such as 512MB or 1GiB (default %s)", usage, humanize.IBytes(uint64(value))), func(text string) error {
		n, err := humanize.ParseBytes(text)
		if err != nil || n > math.MaxInt64 {
			return errors.New("write a number of bytes, optionally with a unit such as 512MB or 1GiB")
		}
		*p = int64(n)
		return nil
	})
}

// List registers a comma-separated list; empty items are dropped.
func (s *Settings) List(p *[]string, env string, value []string, usage string) {
	*p = value
	if len(value) > 0 {
		usage += " (default " + strings.Join(value, ",") + ")"
	}
	s.flags.Func(s.flagName(env), usage, func(text string) error {
		var items []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		if len(items) == 0 {
			return errors.New("the list is empty")
		}
		*p = items
		return nil
	})
}

// Flag registers a flag that has no environment variable.
func (s *Settings) Flag(p *bool, name, usage string) {
	s.flags.BoolVar(p, name, false, usage)
}

// Parse fills the registered settings: defaults, then the environment (an empty variable counts as
// unset), then args. It returns a *HelpError if -help or -version is among them.
func (s *Settings) Parse(args []string) error {
	for name, env := range s.env {
		if text := s.getenv(env); text != "" {
			if err := s.flags.Set(name, text); err != nil {
				return fmt.Errorf("%s=%q: %w", env, text, err)
			}
		}
	}
	if err := s.flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return &HelpError{Text: s.usage()}
	} else if err != nil {
		return err
	}
	if s.version {
		return &HelpError{Text: fmt.Sprintf("%s %s\n", s.flags.Name(), buildinfo.Read())}
	}
	if s.flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: settings are given as -name=value", s.flags.Arg(0))
	}
	return nil
}

// HelpError carries the output of -help (every setting with its environment variable, default and
// meaning) or of -version. The program prints it and exits with 0.
type HelpError struct{ Text string }

func (e *HelpError) Error() string { return "help or version requested" }

func (s *Settings) usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: settings (environment variable or flag; the flag wins)\n", s.flags.Name())
	s.flags.VisitAll(func(f *flag.Flag) {
		name := "-" + f.Name
		if env := s.env[f.Name]; env != "" {
			name = env + ", " + name
		}
		fmt.Fprintf(&b, "  %s\n    \t%s", name, f.Usage)
		if f.DefValue != "" && f.DefValue != "false" {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

// Common holds the settings that every process has. Embed it in a Config.
type Common struct {
	Port      int        // TCP port of the HTTP server; 0 picks a free one
	Host      string     // address to listen on; "" listens on every address
	LogLevel  slog.Level // lowest level that is logged
	PProfAddr string     // host:port that serves the Go profiles; "" serves none
	Probe     bool       // -health: query /ready of the running process and exit
	ReadyPort int        // port that serves /ready; 0 means Port
	Logger    *slog.Logger
	// Listening, if set, is called once with the bound address, before the first request.
	Listening func(addr string)
}

// Register adds the common settings to s, with port as the default of PORT.
func (c *Common) Register(s *Settings, port int) {
	s.Int(&c.Port, "PORT", port, "TCP port to listen on")
	s.String(&c.Host, "HOST", "", "address to listen on; empty listens on every address")
	s.flags.TextVar(&c.LogLevel, s.flagName("LOG_LEVEL"), slog.LevelInfo, "lowest level that is logged: debug, info, warn or error")
	s.String(&c.PProfAddr, "PPROF_ADDR", "", "host:port that serves the Go profiles under /debug/pprof/, which expose the memory of the process: bind it to 127.0.0.1; empty serves none")
	s.Flag(&c.Probe, "health", "check whether the process that runs with these settings is ready, and exit with 0 if it is")
}

// Validate reports a common setting that is invalid.
func (c *Common) Validate() error {
	if err := validatePort("PORT", c.Port); err != nil {
		return err
	}
	if c.PProfAddr != "" {
		if _, port, err := net.SplitHostPort(c.PProfAddr); err != nil || port == "" {
			return fmt.Errorf("PPROF_ADDR=%q: write host:port, such as 127.0.0.1:6060", c.PProfAddr)
		}
	}
	return nil
}

// ValidateMetricsPort returns an error if port cannot be METRICS_PORT, the port of the endpoints for operators.
func (c *Common) ValidateMetricsPort(port int) error {
	if port != 0 && port == c.Port {
		return fmt.Errorf("METRICS_PORT=%d is also PORT: choose another", port)
	}
	return validatePort("METRICS_PORT", port)
}

func validatePort(env string, port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("%s=%d: a TCP port is between 0 and 65535", env, port)
	}
	return nil
}

func (c *Common) common() *Common { return c }
