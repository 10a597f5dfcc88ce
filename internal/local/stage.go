package local

import (
	"context"

	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/state"
)

// stage is a running stack on which load and faults are put. Its methods block until the stack has taken them.
type stage interface {
	state() (state.Stack, error)
	// story returns what has happened to the stack so far.
	story(ctx context.Context) (control.Story, error)
	// setLoad starts the load generator with rates per second, or stops it if reads is 0.
	setLoad(ctx context.Context, reads, writes int) error
	// fault injects a fault (kill, freeze, cut) into a process. A freeze and a cut end by themselves, and when the command
	// is interrupted.
	fault(kind, process string) error
	// setReaders changes the number of readers in rotation.
	setReaders(ctx context.Context, n int) error
	// close ends what belongs to this command.
	close()
}

// controlled is the stage of a stack of local processes: its supervisor does everything.
type controlled struct {
	*processes
	addr string // of the control API
}

func (r *processes) stage() (stage, error) {
	addr, err := r.control()
	return &controlled{r, addr}, err
}

func (c *controlled) story(ctx context.Context) (control.Story, error) {
	return control.Events(ctx, c.addr)
}

func (c *controlled) setLoad(ctx context.Context, reads, writes int) error {
	return control.Load(ctx, c.addr, reads, writes)
}

func (c *controlled) fault(kind, process string) error {
	return control.Fault(c.ctx, c.addr, kind, process)
}

func (c *controlled) setReaders(ctx context.Context, n int) error {
	_, err := control.Scale(ctx, c.addr, n)
	return err
}

func (c *controlled) close() {}
