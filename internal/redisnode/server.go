package redisnode

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Server describes the server in use, for /status.
type Server struct {
	Addr     string `json:"addr"`               // host:port, or the path of a socket; "" while no server is found
	Product  string `json:"product"`            // name and version, such as "Redis 7.0.15"; "" if INFO is refused
	Role     Role   `json:"role"`               // "" if INFO is refused
	Upstream string `json:"upstream,omitempty"` // address of the server that a Redis replica replicates
	Moves    uint64 `json:"moves"`              // number of moves to another server since the start
}

// Server returns the server in use as its last INFO described it. It does not block.
func (f *Finder) Server() Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Server{Moves: f.moves}
	if f.node != nil {
		s.Addr = f.node.Addr
		if info := f.node.info.Load(); info != nil {
			s.Product, s.Role, s.Upstream = info.product, info.Role, info.Upstream
		}
	}
	return s
}

// serverInfo is the result of INFO.
type serverInfo struct {
	product string
	Replication
}

// inspect reads product and role of n with INFO and returns an error if n cannot be used. A server that
// refuses INFO can be: if it is a Redis replica, it refuses writes anyway. inspect blocks until the replies
// arrive or ctx is done.
func (f *Finder) inspect(ctx context.Context, n *Node) error {
	product, err := productOf(ctx, n.Client)
	if err != nil {
		return err
	}
	r, err := AskReplication(ctx, n.Client)
	if hidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	n.info.Store(&serverInfo{product, r})
	return f.roleError(r)
}

// noRole is the role label of a server that refuses INFO.
const noRole = "unknown"

// Register registers the metrics of f with reg. Addresses are not labels, because their number is unbounded
// where servers come and go; /status shows them.
func (f *Finder) Register(reg prometheus.Registerer) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "redis_moves_total", Help: "Moves of this process to another Redis server.",
	}, func() float64 { return float64(f.Server().Moves) }))
	for _, role := range []Role{Primary, Replica, noRole} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "redis_server_found", Help: "1 while this process has found a usable Redis server, by the role of that server.",
			ConstLabels: prometheus.Labels{"role": string(role)},
		}, func() float64 {
			if s := f.Server(); s.Addr != "" && (s.Role == role || s.Role == "" && role == noRole) {
				return 1
			}
			return 0
		}))
	}
}
