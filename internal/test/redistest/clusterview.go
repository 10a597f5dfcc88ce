package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// clusterView is a node's view of all nodes, by their ids.
type clusterView map[string]clusterNode

type clusterNode struct {
	id      string
	flags   []string
	primary string // id of its primary; empty for a primary
	epoch   int
	slots   [][2]int // ranges of slots, first and last
}

func (n clusterNode) has(flag string) bool { return slices.Contains(n.flags, flag) }

func (n clusterNode) owns(slot int) bool {
	return slices.ContainsFunc(n.slots, func(r [2]int) bool { return r[0] <= slot && slot <= r[1] })
}

// String formats roles and slots, so that the strings of two nodes are equal if and only if they agree.
func (v clusterView) String() string {
	var lines []string
	for _, n := range v {
		flags := slices.DeleteFunc(slices.Clone(n.flags), func(f string) bool { return f == "myself" })
		lines = append(lines, fmt.Sprint(n.id, " ", flags, " of ", n.primary, " ", n.slots))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *Server) clusterInfo() (string, error) {
	if err := s.running(); err != nil {
		return "", err
	}
	return s.do(queryTimeout, "CLUSTER", "INFO").Text()
}

func (s *Server) clusterView() (clusterView, error) {
	if err := s.running(); err != nil {
		return nil, err
	}
	text, err := s.do(queryTimeout, "CLUSTER", "NODES").Text()
	if err != nil {
		return nil, fmt.Errorf("CLUSTER NODES on %s: %w", s.Addr(), err)
	}
	view := clusterView{}
	for line := range strings.Lines(text) {
		n, err := parseClusterNode(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("CLUSTER NODES on %s: %q: %w", s.Addr(), line, err)
		}
		view[n.id] = n
	}
	return view, nil
}

// clusterSelf returns a node's view of itself.
func (s *Server) clusterSelf() (clusterNode, error) {
	view, err := s.clusterView()
	return view[s.nodeID], err
}

// parseClusterNode parses a line of CLUSTER NODES: id, address, flags, primary, times of ping and pong, epoch,
// link state, then the slots.
func parseClusterNode(fields []string) (clusterNode, error) {
	if len(fields) < 8 {
		return clusterNode{}, errors.New("fewer than 8 fields")
	}
	n := clusterNode{id: fields[0], flags: strings.Split(fields[2], ",")}
	if fields[3] != "-" {
		n.primary = fields[3]
	}
	var err error
	if n.epoch, err = strconv.Atoi(fields[6]); err != nil {
		return n, err
	}
	for _, field := range fields[8:] {
		if strings.HasPrefix(field, "[") {
			continue // a slot under migration
		}
		first, last, isRange := strings.Cut(field, "-")
		if !isRange {
			last = first
		}
		var r [2]int
		if r[0], err = strconv.Atoi(first); err != nil {
			return n, err
		}
		if r[1], err = strconv.Atoi(last); err != nil {
			return n, err
		}
		n.slots = append(n.slots, r)
	}
	return n, nil
}
