// Package failover promotes another Redis server to primary on request, for example before maintenance,
// without losing a write. It supports Sentinel and Redis Cluster.
package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
)

// Config describes the Redis deployment, with an operator's credentials.
type Config struct {
	redisconfig.Redis
	// Name returns the server's name in the report; nil reports addresses.
	Name func(addr string) string
	Out  io.Writer // receives the report, one line per step; nil discards it
}

// ErrSingle means that the deployment has only one server.
var ErrSingle = errors.New("there is nothing to fail over to: this is a single Redis")

// ParseConfig reads the configuration from flags and environment variables.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("failover", getenv)
	c.Register(s)
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	return c, c.Validate()
}

// Main runs one failover and returns the exit code.
func Main(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	cfg, err := ParseConfig(args, getenv)
	var help *daemon.HelpError
	if errors.As(err, &help) {
		fmt.Fprint(stdout, help.Text)
		return 0
	} else if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return daemon.ExitConfig
	}
	logging.Disable() // go-redis would log errors that the report already contains
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Out = stdout
	if err := Run(ctx, cfg); err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	return 0
}

// Run performs one failover and blocks for at most 40 s. After an error the old primary accepts writes as
// before, unless the error says otherwise.
func Run(ctx context.Context, cfg Config) error {
	if cfg.MasterName == "" && len(cfg.Addr) == 1 {
		return ErrSingle
	}
	cfg.Out = cmp.Or[io.Writer](cfg.Out, io.Discard)
	if cfg.Name == nil {
		cfg.Name = func(addr string) string { return addr }
	}
	s := newServers(cfg)
	defer s.close()
	o := &operation{cfg: cfg, servers: s}
	if cfg.MasterName != "" {
		return o.bySentinel(ctx)
	}
	return o.inCluster(ctx)
}

// operation is one failover.
type operation struct {
	cfg     Config
	servers *servers
}

func (o *operation) report(format string, args ...any) { fmt.Fprintf(o.cfg.Out, format+"\n", args...) }

// names formats a list of servers as "a, b and c".
func (o *operation) names(addrs []string) string {
	var all []string
	for _, a := range addrs {
		all = append(all, o.cfg.Name(a))
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
}

// seconds formats a duration for the report.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// servers keeps one client per address. It is safe for concurrent use.
type servers struct {
	base redisnode.Config // credentials and TLS

	mu      sync.Mutex // guards finders
	finders map[string]*redisnode.Finder
}

func newServers(cfg Config) *servers {
	return &servers{base: cfg.Finder(), finders: make(map[string]*redisnode.Finder)}
}

// redis returns a client of the Redis server at addr, whatever its role.
func (s *servers) redis(ctx context.Context, addr string) (*redis.Client, error) {
	return s.client(ctx, addr, s.base.Username, s.base.Password)
}

// sentinel returns a client of the Sentinel at addr.
func (s *servers) sentinel(ctx context.Context, addr string) (*redis.Client, error) {
	return s.client(ctx, addr, s.base.SentinelUsername, s.base.SentinelPassword)
}

func (s *servers) client(ctx context.Context, addr, username, password string) (*redis.Client, error) {
	s.mu.Lock()
	f := s.finders[addr]
	if f == nil {
		var err error
		f, err = redisnode.New(redisnode.Config{
			Addrs: []string{addr}, Username: username, Password: password, TLS: s.base.TLS,
			ReadFrom: redisnode.Replica, // also accepts a primary
			Logger:   slog.New(slog.DiscardHandler),
		})
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
		s.finders[addr] = f
	}
	s.mu.Unlock()
	n, err := f.Node(ctx)
	if err != nil {
		return nil, err
	}
	return n.Client, nil
}

func (s *servers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.finders {
		_ = f.Close()
	}
}

// await calls done until it returns nil or ctx ends. It returns the last error from before the end of ctx,
// because calls that the end interrupts return only "deadline exceeded".
func await(ctx context.Context, done func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline, bounded := ctx.Deadline()
	var last error
	for {
		err := done()
		if err == nil {
			return nil
		}
		// Compare with the clock too, because a connection can hit the deadline before ctx is done.
		if over := ctx.Err() != nil || bounded && !time.Now().Before(deadline); !over || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
