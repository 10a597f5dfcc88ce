package service

import (
	"cmp"
	"log/slog"
	"time"
)

// Data are the settings of a service that lives on what Redis has: the writer and the readers.
type Data struct {
	Common
	Redis Redis
	Drain time.Duration // how long it goes on serving when it is to stop; the constant by default, below zero not at all
}

// Register adds the settings to s, with the default of PORT.
func (d *Data) Register(s *Settings, port int) {
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
	d.Drain = cmp.Or(d.Drain, Drain)
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
