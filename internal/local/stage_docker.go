package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/load"
	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

const (
	dockerDown  = time.Second      // time between the kill of a container and its start
	faultTime   = 5 * time.Second  // duration of a freeze and a cut
	commandTime = 15 * time.Second // bound of one docker command
)

// observed is the stage of a stack in Docker: this command observes the containers, injects the faults and runs the load
// generator itself.
type observed struct {
	*docker
	log     *events.Log
	running sync.WaitGroup
	end     context.CancelFunc

	mu      sync.Mutex         // guards all fields below
	metrics string             // URL of the load generator's metrics, "" while it does not run
	endLoad context.CancelFunc // nil while it does not run
}

func (d *docker) stage() (stage, error) {
	if _, err := d.state(); err != nil {
		return nil, err
	}
	o := &observed{docker: d, log: events.NewLog()}
	ctx, end := context.WithCancel(d.ctx)
	o.end = end
	page := dashboard.New(dashboard.Config{
		Processes: o.processes, Log: o.log,
		ByClients: true, // APISIX updates its metrics every 5 s; a fault and its outcome can take less
	})
	o.running.Go(func() { page.Run(ctx) })
	return o, nil
}

func (o *observed) close() {
	o.end()
	o.mu.Lock()
	if o.endLoad != nil {
		o.endLoad()
	}
	o.mu.Unlock()
	o.running.Wait()
}

func (o *observed) story(context.Context) (control.Story, error) {
	return control.Story{Events: o.log.Events(), Totals: o.log.Totals()}, nil
}

// processes returns the containers. The health checks of Docker are seconds old, so those of writer, readers and Redis are
// made here.
func (o *observed) processes(ctx context.Context) []state.Process {
	all, err := o.compose.containers(ctx)
	if err != nil {
		return nil // ctx is done, or Docker does not answer
	}
	processes := make([]state.Process, len(all))
	var checks sync.WaitGroup
	for i, c := range all {
		processes[i] = c.process()
		p := &processes[i]
		p.PID = c.State.Pid
		switch {
		case c.State.Status == "exited" || c.State.Status == "dead":
			p.State, p.Detail = state.Restarting, "exit code "+strconv.Itoa(c.State.ExitCode)
		case c.State.Status != "running":
		case p.Role == state.Reader:
			checks.Go(func() { p.SetHealth(health.HTTP("http://" + p.Address + "/ready")(ctx)) })
		case p.Role == state.Writer:
			checks.Go(func() { p.SetHealth(health.HTTP("http://" + c.address(9092) + "/ready")(ctx)) })
		case p.Role == state.Redis && p.Address != "" && o.compose.redis == layout.Single:
			redis := layout.Config{RedisAddr: []string{p.Address}}
			checks.Go(func() { p.SetHealth(redis.ExternalRedis(ctx)) })
		}
	}
	checks.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.metrics != "" {
		processes = append(processes, state.Process{Name: "load", Role: state.Load, State: state.Ready, Metrics: o.metrics})
	}
	return processes
}

func (o *observed) setLoad(_ context.Context, reads, writes int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case reads == 0 && o.endLoad != nil:
		o.endLoad()
		o.endLoad, o.metrics = nil, ""
		o.log.Note(events.LoadStopped, "", "load stopped")
		return nil
	case reads == 0:
		return errors.New("there is no load to stop")
	case o.endLoad != nil:
		return errors.New("the load runs already")
	}
	gateway, err := o.address(state.Gateway)
	if err != nil {
		return err
	}
	writer, err := o.address(state.Writer)
	if err != nil {
		return err
	}
	listening := make(chan string, 1)
	failed := make(chan error, 1)
	ctx, end := context.WithCancel(o.ctx)
	cfg := load.Config{
		Common: daemon.Common{
			Host: supervisor.Host, Logger: slog.New(slog.DiscardHandler),
			Listening: func(addr string) { listening <- addr },
		},
		Gateway: "http://" + gateway, Writer: "http://" + writer, Token: os.Getenv("WRITER_TOKEN"), Reads: reads, Writes: writes,
	}
	o.running.Go(func() { failed <- load.Run(ctx, cfg) })
	select {
	case addr := <-listening:
		o.metrics, o.endLoad = "http://"+addr+"/metrics", end
	case err := <-failed:
		end()
		return err
	}
	o.log.Note(events.LoadStarted, "", fmt.Sprintf("load started: %d reads/s, %d writes/s", reads, writes))
	return nil
}

func (o *observed) setReaders(ctx context.Context, n int) error {
	all, err := o.compose.containers(ctx, "reader")
	if err != nil {
		return err
	}
	id := o.log.Begin(events.Scaled, fmt.Sprintf("readers in rotation: %d → %d", len(all), n))
	began := time.Now()
	silent := *o.docker
	program := *o.program
	program.ctx, program.out = ctx, new(strings.Builder)
	program.err = program.out
	silent.program = &program
	err = silent.scale(n)
	o.log.Finish(id, fmt.Sprintf("done after %.1f s", time.Since(began).Seconds()), err)
	return err
}

// dockerFaults returns the faults that can be injected into a container of a service.
func dockerFaults(name, service string) map[string]dockerFault {
	data := cmp.Or(os.Getenv("COMPOSE_PROJECT_NAME"), "heavy-read-api") + "_data"
	return map[string]dockerFault{
		"kill": {
			events.Killed, name + " was killed (docker kill)", dockerDown, 0,
			[]string{"kill", name}, []string{"start", name},
		},
		"freeze": {
			events.Frozen, name + " was frozen for 5 s (docker pause)", faultTime, faultTime,
			[]string{"pause", name}, []string{"unpause", name},
		},
		"cut": {
			events.Cut, name + " was cut off from Redis for 5 s (docker network disconnect)", faultTime, faultTime,
			[]string{"network", "disconnect", data, name}, []string{"network", "connect", "--alias", service, data, name}, // other services find it by that name
		},
	}
}

// dockerFault is a fault and the commands that begin and end it.
type dockerFault struct {
	event, text string
	pause       time.Duration // between the two commands
	lasts       time.Duration // part of pause in which the container is not expected to recover
	begin, end  []string
}

// fault injects a fault and ends it. An interrupt ends it early.
func (o *observed) fault(kind, name string) error {
	all, err := o.compose.containers(o.ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c container) bool { return c.name() == name })
	if i < 0 {
		return fmt.Errorf("there is no container %q", name)
	}
	p := all[i].process()
	p.PID = all[i].State.Pid
	f, ok := dockerFaults(name, all[i].service())[kind]
	if !ok {
		return fmt.Errorf("there is no fault %q: use kill, freeze or cut", kind)
	}
	id, err := o.log.Fault(f.event, p, f.lasts, f.text)
	if err != nil {
		return err
	}
	began := runDocker(o.ctx, f.begin)
	if began == nil {
		err = o.wait(f.pause)
	}
	// Always, and not with o.ctx: Docker may have begun the fault although its command failed or was interrupted.
	ended := runDocker(context.WithoutCancel(o.ctx), f.end)
	switch {
	case began != nil:
		o.log.Cancel(id)
		return began
	case ended != nil:
		return fmt.Errorf("%w; end the fault by hand", ended)
	}
	return err
}

// runDocker runs docker, for commandTime at most. The Ctrl-C of a terminal, which all processes of the foreground
// get, does not reach it.
func runDocker(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // a plugin that survives the kill may hold the pipe
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker %s: %s", strings.Join(args, " "), cmp.Or(lastLine(string(out)), err.Error()))
	}
	return nil
}
