// Package daemon starts and stops a process of the stack: its configuration from environment and
// flags, its logger, its signals, and the health check of a container.
package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Settings reads configuration: every setting has one name, which is an environment variable
// (REDIS_ADDR) and a flag (-redis-addr); the flag wins. Register the settings, then call Parse.
type Settings struct {
	flags  *flag.FlagSet
	getenv func(string) string
	env    map[string]string // flag name -> environment variable
}

// NewSettings returns an empty set for the named program. getenv is os.Getenv outside of tests.
func NewSettings(program string, getenv func(string) string) *Settings {
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // Parse returns what there is to say
	return &Settings{flags: fs, getenv: getenv, env: make(map[string]string)}
}

// flagName registers env and returns the flag's name for it.
func (s *Settings) flagName(env string) string {
	name := strings.ToLower(strings.ReplaceAll(env, "_", "-"))
	s.env[name] = env
	return name
}

// String registers a setting that is a string.
func (s *Settings) String(p *string, env, value, usage string) {
	s.flags.StringVar(p, s.flagName(env), value, usage)
}

// Bool registers a setting that is true or false, and false by default.
func (s *Settings) Bool(p *bool, env, usage string) {
	s.flags.BoolVar(p, s.flagName(env), false, usage)
}

// Int registers a setting that is a whole number.
func (s *Settings) Int(p *int, env string, value int, usage string) {
	s.flags.IntVar(p, s.flagName(env), value, usage)
}

// Int64 registers a setting that is a whole number, such as a size in bytes.
func (s *Settings) Int64(p *int64, env string, value int64, usage string) {
	s.flags.Int64Var(p, s.flagName(env), value, usage)
}

// Bytes registers a setting that is a size: a number of bytes, or one with a unit, such as 512MB (10^6) or
// 1GiB (2^30).
func (s *Settings) Bytes(p *int64, env string, value int64, usage string) {
	*p = value
	s.flags.Func(s.flagName(env), fmt.Sprintf("%s: in bytes, or with a unit, such as 512MB or 1GiB (default %s)", usage, humanize.IBytes(uint64(value))), func(text string) error {
		n, err := humanize.ParseBytes(text)
		if err != nil || n > math.MaxInt64 {
			return errors.New("write a number of bytes, or one with a unit, such as 512MB or 1GiB")
		}
		*p = int64(n)
		return nil
	})
}

// Duration registers a setting such as "1500ms" or "2s".
func (s *Settings) Duration(p *time.Duration, env string, value time.Duration, usage string) {
	s.flags.DurationVar(p, s.flagName(env), value, usage)
}

// List registers a setting that is a comma-separated list; empty items are dropped.
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

// Flag registers a switch of the command line alone.
func (s *Settings) Flag(p *bool, name, usage string) {
	s.flags.BoolVar(p, name, false, usage)
}

// Parse fills the registered settings: defaults, then the environment (an empty variable counts as
// unset), then args. It returns a *HelpError when -help is among them.
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
	if s.flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: settings are given as -name=value", s.flags.Arg(0))
	}
	return nil
}

// HelpError carries the text that -help asks for: every setting with its environment variable,
// default and meaning.
type HelpError struct{ Text string }

func (e *HelpError) Error() string { return "help requested" }

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

// Common are the settings that every process has. Embed it in a Config.
type Common struct {
	Port     int        // TCP port of the HTTP server on all addresses of Host; 0 picks a free one
	Host     string     // address to listen on; "" is every address
	LogLevel slog.Level // least level that is logged
	Probe    bool       // -health: ask the running process whether it is ready, and exit
	// ReadyPort is the port that answers /ready where it is not Port; 0 stands for Port.
	ReadyPort int
	Logger    *slog.Logger
	// Listening, when set, is called once with the bound address, before the first request.
	Listening func(addr string)
}

// Register adds the common settings to s.
func (c *Common) Register(s *Settings, port int) {
	s.Int(&c.Port, "PORT", port, "TCP port to listen on")
	s.String(&c.Host, "HOST", "", "address to listen on; empty listens on every address")
	s.flags.TextVar(&c.LogLevel, s.flagName("LOG_LEVEL"), slog.LevelInfo, "least level that is logged: debug, info, warn or error")
	s.Flag(&c.Probe, "health", "ask the process that runs with these settings whether it is ready, and exit with 0 when it is")
}

// Validate reports a common setting that cannot work.
func (c *Common) Validate() error {
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("PORT=%d: a TCP port is between 0 and 65535", c.Port)
	}
	return nil
}

func (c *Common) common() *Common { return c }
