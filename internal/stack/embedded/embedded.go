// Package embedded is a Redis in pure Go that keeps everything in memory, for machines without redis-server.
package embedded

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"

	"heavy-read-api/internal/daemon"
)

// Config configures the embedded Redis.
type Config struct {
	daemon.Common
	password string
}

// ParseConfig reads the settings of the process.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("redis (embedded)", getenv)
	c.Register(s, 6379)
	s.String(&c.password, "REDIS_PASSWORD", "", "password that clients have to log in with")
	if err := s.Parse(args); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// Run serves Redis until ctx is done.
func Run(ctx context.Context, c Config) error {
	r := miniredis.NewMiniRedis()
	r.RequireAuth(c.password)
	addr := fmt.Sprintf("%s:%d", c.Host, c.Port)
	if err := r.StartAddr(addr); err != nil {
		return fmt.Errorf("listen on port %d: %w", c.Port, err)
	}
	defer r.Close()
	c.Logger.Info("embedded Redis: posts are in memory only and are lost at a stop", "addr", addr)
	<-ctx.Done()
	return nil
}
