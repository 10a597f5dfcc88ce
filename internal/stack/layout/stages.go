package layout

import (
	"context"
	"errors"
	"strings"

	"heavy-read-api/internal/stack/supervisor"
)

// Stage is a part of the stack whose processes are started without waiting for each other.
type Stage struct {
	Specs []supervisor.Spec
	// Form, when set, joins the processes, which run, to one system. It blocks until that is done or ctx is.
	Form func(ctx context.Context) error
}

// Stages returns the stages in the order of their start: those of the stack's own Redis, then the rest as the
// last one.
func (c *Config) Stages() (stages []Stage, err error) {
	if c.OwnRedis() {
		var what string
		if stages, what, err = c.ownRedisStages(); err != nil {
			return nil, err
		}
		c.Logger.Info("Redis is " + what)
	} else {
		c.Logger.Info("Redis is the one of REDIS_ADDR, none is started", "addr", strings.Join(c.RedisAddr, ","))
	}
	var rest []supervisor.Spec
	var errs []error
	add := func(s supervisor.Spec, err error) { rest, errs = append(rest, s), append(errs, err) }
	add(c.writer())
	for n := range c.Readers {
		add(c.Reader(n + 1))
	}
	add(c.direct())
	add(c.gateway())
	return append(stages, Stage{Specs: rest}), errors.Join(errs...)
}
