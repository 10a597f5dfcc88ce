package stack

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"

	"heavy-read-api/internal/daemon"
)

// embeddedConfig configures the embedded Redis, a process as the others are.
type embeddedConfig struct {
	daemon.Common
	password string
}

func parseEmbedded(args []string, getenv func(string) string) (embeddedConfig, error) {
	var c embeddedConfig
	s := daemon.NewSettings("redis (embedded)", getenv)
	c.Register(s, 6379)
	s.String(&c.password, "REDIS_PASSWORD", "", "password that clients have to log in with")
	if err := s.Parse(args); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// runEmbedded serves an in-memory Redis in pure Go until ctx is done.
func runEmbedded(ctx context.Context, c embeddedConfig) error {
	r := miniredis.NewMiniRedis()
	r.RequireAuth(c.password)
	addr := fmt.Sprintf("%s:%d", c.Host, c.Port)
	if err := r.StartAddr(addr); err != nil {
		return fmt.Errorf("listen on port %d: %w", c.Port, err)
	}
	defer r.Close()
	c.Logger.Info("embedded Redis: everything is in memory and gone after a stop", "addr", addr)
	<-ctx.Done()
	return nil
}
