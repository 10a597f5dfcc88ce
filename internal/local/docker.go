package local

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
)

// docker is the runtime in Docker Compose.
type docker struct {
	*program
	compose *compose
}

// service describes a service of docker-compose.yaml; a service that is absent from services has its own name as
// role and no port.
type service struct {
	role          string
	port, metrics int    // port numbers in the container; 0 if there is none
	metricsPath   string // URL path on the port metrics
}

var services = map[string]service{
	"writer":        {state.Writer, 8080, 9092, "/metrics"},
	"reader":        {state.Reader, 80, 80, "/metrics"},
	"reader-direct": {state.Reader, 80, 80, "/metrics"},
	"auditor":       {state.Auditor, 9093, 9093, "/metrics"},
	"apisix":        {state.Gateway, 9080, 9091, layout.GatewayMetricsPath},
	"redis":         {state.Redis, 6379, 0, ""},
	"redis-2":       {state.Redis, 6379, 0, ""},
	"redis-3":       {state.Redis, 6379, 0, ""},
	"sentinel-1":    {state.Sentinel, 0, 0, ""},
	"sentinel-2":    {state.Sentinel, 0, 0, ""},
	"sentinel-3":    {state.Sentinel, 0, 0, ""},
	"prometheus":    {state.Prometheus, 9090, 0, ""},
	"dashboard":     {"dashboard", 3000, 0, ""},
	"grafana":       {state.Grafana, 3000, 0, ""},
}

// images pulls and builds what is missing. With an error it returns the output of Docker.
func (d *docker) images() (string, error) {
	fmt.Fprintln(d.out, "Pulling and building images; the first time takes minutes.")
	var log bytes.Buffer
	for _, args := range [][]string{
		{"pull", "--quiet", "--ignore-buildable", "--policy", "missing"},
		{"build", "--quiet"},
	} {
		cmd := d.compose.cmd(args...)
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := d.run(cmd); err != nil {
			if log.Len() == 0 {
				fmt.Fprintln(&log, err)
			}
			return log.String(), err
		}
	}
	return "", nil
}

// checkReaders returns an error unless value is a possible number of readers: at most one per port in READER_PORTS, and
// at most layout.MaxReaders.
func (d *docker) checkReaders(setting, value string) error {
	ports := cmp.Or(os.Getenv("READER_PORTS"), "8082-8101")
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err := errors.Join(err1, err2); err != nil {
		return usage("READER_PORTS=%s: use a port or a range such as 8082-8101", ports)
	}
	most := min(to-from+1, layout.MaxReaders)
	if n, err := strconv.Atoi(value); err != nil || n < 1 || n > most {
		return usage("%s=%s: between 1 and %d readers can be in rotation (READER_PORTS=%s)", setting, value, most, ports)
	}
	return nil
}

func (d *docker) start() error {
	if err := d.checkReaders("READERS", cmp.Or(os.Getenv("READERS"), "3")); err != nil {
		return err
	}
	if err := rundir.Make(runDir()); err != nil {
		return err
	}
	if err := rundir.WriteFile(filepath.Join(runDir(), layoutFile), d.compose.redis+"\n"); err != nil {
		return fmt.Errorf("remember the layout of Redis: %w", err)
	}
	if err := d.runVisibly(d.compose.cmd("up", "--detach", "--wait", "--wait-timeout", "180", "--remove-orphans")); err != nil {
		d.printState()
		return errors.New("not everything became healthy; make logs shows why (a port that is in use: .env.example has the variables)")
	}
	if err := d.awaitRotation(); err != nil {
		return err
	}
	return d.printAddresses()
}

// printState prints the state of the containers after a failed command, as far as docker reports it.
func (d *docker) printState() {
	if st, err := d.state(); err == nil {
		printHealth(d.out, st)
	}
}

func (d *docker) printAddresses() error {
	all, err := d.compose.containers(d.ctx)
	if err != nil {
		return err
	}
	fmt.Fprint(d.out, "\nThe stack is up:\n")
	for _, line := range []struct{ label, service, rest string }{
		{"dashboard", "dashboard", ""},
		{"Grafana", "grafana", ""},
		{"write", "writer", "/create"},
		{"read", "apisix", "/post?id=...   (gateway, all readers)"},
		{"read directly", "reader-direct", "/post?id=...   (reader-direct)"},
		{"metrics", "prometheus", ""},
	} {
		i := slices.IndexFunc(all, func(c container) bool { return c.service() == line.service })
		if i < 0 {
			continue // an override file may leave it out
		}
		addr := all[i].address(services[line.service].port)
		if port, ok := strings.CutPrefix(addr, "127.0.0.1:"); ok {
			addr = "localhost:" + port
		}
		fmt.Fprintf(d.out, "  %-14s http://%s%s\n", line.label, addr, line.rest)
	}
	fmt.Fprintln(d.out, "  posts are in   the volume of Redis; make stop keeps it, make clean deletes it")
	if d.compose.redis == layout.WithSentinel {
		fmt.Fprintln(d.out, "  Redis          three servers and three Sentinels; make health shows which server is the primary")
	}
	return nil
}

// listTries is how often the gateway's list is read until it has every reader.
const listTries = 20

// awaitRotation waits until the gateway uses every reader. The error names those that are missing.
func (d *docker) awaitRotation() error {
	for try := 1; ; try++ {
		missing, err := d.unlisted()
		if err != nil {
			missing = []string{"all of them (the gateway does not answer)"}
		}
		if len(missing) == 0 {
			break
		}
		if try == listTries {
			return fmt.Errorf("the gateway does not list every reader: %s", strings.Join(missing, ", "))
		}
		if err := d.wait(d.pause / 2); err != nil {
			return err
		}
	}
	return d.wait(d.pause) // APISIX reads the list once a second
}

// unlisted returns the readers that are not on the gateway's list, which nodes.sh writes.
func (d *docker) unlisted() ([]string, error) {
	list, err := d.compose.output(d.ctx, "exec", "-T", "apisix", "cat", "/run/apisix/apisix.yaml")
	if err != nil {
		return nil, err
	}
	readers, err := d.compose.containers(d.ctx, "reader")
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, c := range readers {
		listed := false
		for _, n := range c.NetworkSettings.Networks {
			listed = listed || strings.Contains(list, "{host: "+n.IPAddress+",")
		}
		if !listed {
			missing = append(missing, fmt.Sprintf("%s (%s)", c.name(), c.process().StateText()))
		}
	}
	return missing, nil
}

func (d *docker) stop() error {
	if err := d.runVisibly(d.compose.cmd("down", "--remove-orphans")); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "Stopped. The posts stay in the volume of Redis.")
	return nil
}

func (d *docker) scale(readers int) error {
	n := strconv.Itoa(readers)
	if err := d.checkReaders("N", n); err != nil {
		return err
	}
	if err := d.runVisibly(d.compose.cmd("up", "--detach", "--wait", "--wait-timeout", "120", "--no-deps", "--no-recreate", "--scale", "reader="+n, "reader")); err != nil {
		d.printState()
		return err
	}
	if err := d.awaitRotation(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d readers are in rotation.\n", readers)
	return nil
}

// failover runs in a container, because the Sentinels have no port on this machine.
func (d *docker) failover() error {
	if d.compose.redis == layout.Single {
		return errors.New("there is nothing to fail over to: this is a single Redis; REDIS=sentinel starts three")
	}
	return d.runVisibly(d.compose.cmd("--progress", "quiet", "run", "--rm", "--no-deps", "-T", "failover"))
}

func (d *docker) logs(service string) error {
	args := []string{"logs", "--follow", "--tail", "50"}
	switch {
	case service == "reader":
		args = append(args, "reader", "reader-direct")
	case service == "redis" && d.compose.redis == layout.WithSentinel:
		args = append(args, "redis", "redis-2", "redis-3", "sentinel-1", "sentinel-2", "sentinel-3")
	case service != "":
		args = append(args, service)
	}
	return d.compose.exec(args...)
}

func (d *docker) build() error { return d.runVisibly(d.compose.cmd("build")) }

func (d *docker) clean() error {
	if err := d.runVisibly(d.compose.cmd("down", "--volumes", "--remove-orphans")); err != nil {
		return err
	}
	// Images are found by the label of Compose's project, because the last stack may have had another number of Redis
	// servers, and reader and reader-direct share an image. An image that is still in use stays, without an error.
	mine := "label=com.docker.compose.project=" + cmp.Or(os.Getenv("COMPOSE_PROJECT_NAME"), "heavy-read-api")
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"network", "ls", "--quiet"}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "--quiet"}, []string{"volume", "rm"}},
		{[]string{"images", "--all", "--quiet"}, []string{"image", "rm", "--force"}},
	} {
		ids, err := exec.Command("docker", append(kind.list, "--filter", mine)...).Output()
		if err == nil && len(bytes.TrimSpace(ids)) > 0 {
			all := strings.Fields(string(ids))
			slices.Sort(all)
			_ = exec.Command("docker", append(kind.remove, slices.Compact(all)...)...).Run()
		}
	}
	for _, file := range []string{runtimeFile, layoutFile} {
		os.Remove(filepath.Join(runDir(), file))
	}
	fmt.Fprintln(d.out, "Deleted containers, networks, volumes and images of the stack.")
	return nil
}

func (d *docker) address(role string) (string, error) {
	st, err := d.state()
	if err != nil {
		return "", err
	}
	for _, p := range st.Processes {
		if p.Role == role && p.Address != "" {
			return p.Address, nil
		}
	}
	return "", errNotRunning
}

// state returns the containers, and the services that have none.
func (d *docker) state() (state.Stack, error) {
	all, err := d.compose.containers(d.ctx)
	if err != nil {
		return state.Stack{}, err
	}
	if len(all) == 0 {
		return state.Stack{}, errNotRunning
	}
	names, err := d.compose.output(d.ctx, "config", "--services")
	if err != nil {
		return state.Stack{}, err
	}
	st := state.Stack{Complete: true}
	expected := strings.Fields(names)
	slices.Sort(expected)
	for _, name := range expected {
		if !slices.ContainsFunc(all, func(c container) bool { return c.service() == name }) {
			st.Processes = append(st.Processes, state.Process{Name: name, State: "no container"})
		}
	}
	for _, c := range all {
		st.Processes = append(st.Processes, c.process())
	}
	return st, nil
}

// note matches the output of a health check that is shown though the container is healthy.
var note = regexp.MustCompile(`^(primary|Redis replica|OK )`)

// process returns the container as a process of the stack. Its state is that of the newest health check.
func (c container) process() state.Process {
	s, known := services[c.service()]
	if !known {
		s.role = c.service()
	}
	p := state.Process{Name: c.name(), Role: s.role, Address: c.address(s.port), State: c.State.Status}
	if addr := c.address(s.metrics); addr != "" {
		p.Metrics = "http://" + addr + s.metricsPath
	}
	h := c.State.Health
	if c.State.Status != "running" || h == nil {
		return p
	}
	said := ""
	if len(h.Log) > 0 {
		said = strings.TrimSpace(strings.ReplaceAll(h.Log[len(h.Log)-1].Output, "\n", " "))
	}
	switch reasons, degraded := strings.CutPrefix(said, "degraded"); {
	case h.Status == "starting":
		p.State = h.Status
	case h.Status != "healthy":
		p.State, p.Detail = state.NotReady, strings.TrimPrefix(said, "not ready: ")
	case degraded:
		p.State, p.Detail = state.Degraded, strings.TrimPrefix(reasons, ": ")
	case strings.HasPrefix(said, "ready: "):
		p.State, p.Note = state.Ready, strings.TrimPrefix(said, "ready: ")
	case note.MatchString(said):
		p.State, p.Note = state.Ready, said
	default:
		p.State = state.Ready
	}
	return p
}
