package redisconfig

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
)

// Data are the settings of a service that lives on what Redis has: the writer and the readers.
type Data struct {
	daemon.Common
	Redis Redis
	Drain time.Duration // how long it goes on serving when it is to stop; the constant by default, below zero not at all
}

// Register adds the settings to s, with the default of PORT.
func (d *Data) Register(s *daemon.Settings, port int) {
	d.Common.Register(s, port)
	d.Redis.Register(s)
}

// Complete fills in the defaults and reports a setting that cannot work.
func (d *Data) Complete() error {
	if err := d.Common.Validate(); err != nil {
		return err
	}
	if err := d.Redis.Validate(); err != nil {
		return err
	}
	d.Drain = cmp.Or(d.Drain, httpkit.Drain)
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// LogTo sends what the Redis client logs to log, at level debug: the client repeats itself while Redis is
// away, and its callers log the same errors. It sets the client's logger for the whole process.
func (d *Data) LogTo(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
}
