package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	scaleReadyWait  = 15 * time.Second // for a new reader to hold the data, before it gets traffic anyway
	gatewayDropWait = 3 * time.Second  // for the gateway to let go of a node; it re-reads its file twice a second
)

var errScaling = errors.New("the readers are being scaled already: try again when that is done")

// scale brings the number of readers in rotation to n, 1 to MaxReaders: new ones get traffic once they are ready,
// the ones with the highest numbers go, after the gateway has let go of them, so that no read
// fails. It blocks until that is done; of two calls at the same time one is refused.
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
	var added []*process
	for _, sp := range specs {
		p, err := s.launch(sp, nil)
		if err != nil {
			return err
		}
		added = append(added, p)
	}
	ctx, cancel := context.WithTimeout(ctx, scaleReadyWait)
	defer cancel()
	for _, p := range added {
		if !await(ctx, func() bool { return p.isStopping() || p.check(ctx).ready }) {
			s.log.Warn("reader is not ready yet, the gateway gets it all the same and checks it itself", "process", p.name)
		}
	}
	return s.list()
}

func (s *stack) scaleDown(ctx context.Context, n int) error {
	rotation := s.rotation()
	leaving := rotation[min(n, len(rotation)):]
	if err := s.list(leaving...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, gatewayDropWait)
	defer cancel()
	if !await(wait, func() bool { return !s.gatewayHasAny(wait, leaving) }) {
		s.log.Warn("the gateway still lists a reader that is about to stop", "waited", gatewayDropWait)
	}
	for _, p := range leaving {
		p.stop()
	}
	for _, p := range leaving {
		<-p.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs = slices.DeleteFunc(s.procs, func(p *process) bool { return slices.Contains(leaving, p) })
	return nil
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

// gatewayHasAny reports whether the gateway's metrics list one of the readers as a node. A gateway
// that cannot be asked may have them.
func (s *stack) gatewayHasAny(ctx context.Context, readers []*process) bool {
	url := "http://" + address(s.cfg.GatewayMetricsPort) + gatewayMetricsPath
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return true
	}
	res, err := checkClient.Do(req)
	if err != nil {
		return true
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 8<<20))
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "apisix_upstream_status{") {
			continue
		}
		for _, p := range readers {
			if strings.Contains(lines.Text(), fmt.Sprintf(`port="%d"`, p.ports[0].number)) {
				return true
			}
		}
	}
	return lines.Err() != nil || res.StatusCode != http.StatusOK
}
