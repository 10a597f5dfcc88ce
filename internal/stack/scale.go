package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	scaleReadyWait = 15 * time.Second // for the new readers to be ready, before they are listed anyway
	gatewayWait    = 3 * time.Second  // for the gateway to follow the nodes file, which it re-reads twice a second
)

var errScaling = errors.New("the readers are being scaled already: try again when that is done")

// scale brings the number of readers in rotation to n, 1 to MaxReaders: new ones get traffic once
// they are ready; the ones with the highest numbers stop after the gateway has dropped them, so that
// no read fails. It blocks until the gateway has followed, for 20 s or so at most; then the error says
// which reader is missing and why. Of two calls at the same time one is refused.
func (s *stack) scale(ctx context.Context, n int) error {
	select {
	case s.scaling <- struct{}{}:
		defer func() { <-s.scaling }()
	default:
		return errScaling
	}
	if !s.state(ctx).Complete {
		return errors.New("the stack is still starting: try again when it is up")
	}
	now := len(s.rotation())
	s.log.Info("scaling the readers", "from", now, "to", n)
	if n > now {
		return s.scaleUp(ctx, now, n)
	}
	return s.scaleDown(ctx, n)
}

func (s *stack) scaleUp(ctx context.Context, from, to int) error {
	var specs []spec
	for i := from + 1; i <= to; i++ {
		sp, err := s.cfg.reader(i)
		if err == nil {
			err = checkPorts(sp)
		}
		if err != nil {
			return err // nothing was started yet
		}
		specs = append(specs, sp)
	}
	failed := make(chan error, 1)
	report := reportTo(failed)
	scaling, over := context.WithCancel(ctx)
	defer over()
	var added []*process
	for _, sp := range specs {
		p, err := s.launch(sp, func(p *process, e end) bool {
			return scaling.Err() == nil && report(p, e) // nobody reads failed any more later
		})
		if err != nil {
			s.remove(added)
			return err
		}
		added = append(added, p)
	}
	wait, cancel := context.WithTimeout(ctx, scaleReadyWait)
	defer cancel()
	var ready []*process
	for _, p := range added {
		if await(wait, func() bool { return len(failed) > 0 || p.isStopping() || p.check(wait).ready }) {
			ready = append(ready, p)
		}
	}
	select {
	case err := <-failed:
		s.remove(added)
		return err
	default:
	}
	// The others are listed too: the gateway checks them and uses them once they are ready.
	if err := s.list(); err != nil {
		return err
	}
	wait, cancel = context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	await(wait, func() bool { return len(s.outside(wait, ready)) == 0 })
	if missing := s.outside(ctx, added); len(missing) > 0 {
		return fmt.Errorf("not every new reader is in rotation: %s; they join once they are ready", strings.Join(missing, ", "))
	}
	return nil
}

// outside tells which of the readers the gateway does not use, and why.
func (s *stack) outside(ctx context.Context, readers []*process) []string {
	nodes, err := s.gatewayNodes(ctx)
	var all []string
	for _, p := range readers {
		if nodes[p.ports[0].number] {
			continue
		}
		why := "the gateway does not use it yet"
		if st := p.state(ctx); !st.Up() {
			why = stateText(st)
		} else if err != nil {
			why = "the gateway cannot be asked: " + shortNetError(err)
		}
		all = append(all, fmt.Sprintf("%s (%s)", p.name, why))
	}
	return all
}

func (s *stack) scaleDown(ctx context.Context, n int) error {
	rotation := s.rotation()
	leaving := rotation[min(n, len(rotation)):]
	if err := s.list(leaving...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	if !await(wait, func() bool { return !s.gatewayHasAny(wait, leaving) }) {
		s.log.Warn("the gateway still lists a reader that is about to stop", "waited", gatewayWait)
	}
	s.remove(leaving)
	return nil
}

// remove stops readers, all at once, waits for their end and forgets them.
func (s *stack) remove(readers []*process) {
	for _, p := range readers {
		p.stop()
	}
	for _, p := range readers {
		<-p.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs = slices.DeleteFunc(s.procs, func(p *process) bool { return slices.Contains(readers, p) })
}

// rotation returns the readers that are or will be behind the gateway, reader-1 first.
func (s *stack) rotation() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*process
	for _, p := range s.procs {
		if p.role == roleReader && p.ports[0].env == "READER_PORT" {
			out = append(out, p)
		}
	}
	return out
}

// list writes the nodes file: every reader in rotation that was started, but those that leave.
func (s *stack) list(leaving ...*process) error {
	var nodes []string
	for _, p := range s.rotation() {
		if !slices.Contains(leaving, p) {
			nodes = append(nodes, address(p.ports[0].number))
		}
	}
	return writeNodes(s.cfg.file(nodesFile), nodes)
}

// gatewayHasAny reports whether the gateway lists one of the readers. A gateway that cannot be asked
// may have them.
func (s *stack) gatewayHasAny(ctx context.Context, readers []*process) bool {
	nodes, err := s.gatewayNodes(ctx)
	return err != nil || slices.ContainsFunc(readers, func(p *process) bool {
		_, listed := nodes[p.ports[0].number]
		return listed
	})
}

// gatewayNodes returns the ports of the readers that the gateway lists, and whether each is in
// rotation, from its metrics.
func (s *stack) gatewayNodes(ctx context.Context) (map[int]bool, error) {
	url := "http://" + address(s.cfg.GatewayMetricsPort) + gatewayMetricsPath
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := checkClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, res.Status)
	}
	nodes := make(map[int]bool)
	lines := bufio.NewScanner(io.LimitReader(res.Body, 8<<20))
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "apisix_upstream_status{") {
			continue
		}
		labels, value, _ := strings.Cut(lines.Text(), "} ")
		_, label, _ := strings.Cut(labels, `port="`)
		number, _, _ := strings.Cut(label, `"`)
		port, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%s has no port in %q", url, lines.Text())
		}
		nodes[port] = value == "1"
	}
	return nodes, lines.Err()
}
