package layout

import (
	"context"
	"errors"
	"strings"

	"heavy-read-api/internal/stack/supervisor"
)

// Stage is a group of processes that are started together, without waiting for each other.
type Stage struct {
	Specs []supervisor.Spec
	// Form joins the running processes into one system, such as a Redis Cluster. It blocks until that is done or ctx
	// ends. It is nil if there is nothing to join.
	Form func(ctx context.Context) error
}

// Stages returns the stages in the order of their start: first those of the stack's own Redis, then one with all other
// processes.
func (c *Config) Stages() (stages []Stage, err error) {
	if c.OwnRedis() {
		var what string
		if stages, what, err = c.ownRedisStages(); err != nil {
			return nil, err
		}
		c.Logger.Info("Redis is " + what)
	} else {
		c.Logger.Info("using the Redis of REDIS_ADDR; the stack starts none", "addr", strings.Join(c.RedisAddr, ","))
	}
	var rest []supervisor.Spec
	var errs []error
	add := func(s supervisor.Spec, err error) { rest, errs = append(rest, s), append(errs, err) }
	add(c.writer())
	for n := range c.Readers {
		add(c.Reader(n + 1))
	}
	add(c.direct())
	add(c.auditor())
	add(c.gateway())
	return append(stages, Stage{Specs: rest}), errors.Join(errs...)
}
