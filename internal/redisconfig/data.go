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

// Data holds the settings that the writer and the readers share.
type Data struct {
	daemon.Common
	Redis Redis
	Drain time.Duration // time between SIGTERM and closing the listener; 0 means httpkit.Drain, negative means none
}

// Register adds the settings to s, with port as the default of PORT.
func (d *Data) Register(s *daemon.Settings, port int) {
	d.Common.Register(s, port)
	d.Redis.Register(s)
}

// Complete sets the defaults and reports a setting that is invalid.
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

// LogTo calls LogClient.
func (d *Data) LogTo(log *slog.Logger) { LogClient(log) }

// LogClient sends the log of the Redis client to log, at level debug: the client logs every failed attempt while
// Redis is away, and its callers log the same errors. It replaces the client's logger in the whole process.
func LogClient(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
}
