package redisnode

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Server describes the server that a Finder has found, for operators.
type Server struct {
	Addr     string `json:"addr"`               // host:port, or the path of a socket; "" while there is none
	Product  string `json:"product"`            // with its version, such as "Redis 7.0.15"; "" where INFO is refused
	Role     Role   `json:"role"`               // "" where INFO is refused
	Upstream string `json:"upstream,omitempty"` // address of the server that a Redis replica replicates
	Moves    uint64 `json:"moves"`              // times that another server than the last one was found
}

// Server returns what is known of the server in use. It does not block.
func (f *Finder) Server() Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Server{Moves: f.moves}
	if f.node != nil {
		s.Addr = f.node.Addr
		if seen := f.node.seen.Load(); seen != nil {
			s.Product, s.Role, s.Upstream = seen.product, seen.Role, seen.Upstream
		}
	}
	return s
}

// seen is what a server has said about itself.
type seen struct {
	product string
	Replication
}

// look asks n about itself. It returns an error when n cannot be the server to talk to, but not when INFO is
// refused: a Redis replica refuses writes anyway. It blocks until ctx is done at most.
func (f *Finder) look(ctx context.Context, n *Node) error {
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
	n.seen.Store(&seen{product, r})
	return f.roleError(r)
}

// noRole is the label of a server that refuses INFO.
const noRole = "unknown"

// Register adds the metrics of f to reg. Addresses are no labels, because their number has no bound where
// servers come and go: Server has them.
func (f *Finder) Register(reg prometheus.Registerer) {
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "redis_moves_total", Help: "Times that another Redis server than the last one was found.",
	}, func() float64 { return float64(f.Server().Moves) }))
	for _, role := range []Role{Primary, Replica, noRole} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "redis_server_found", Help: "1 while the process has a Redis server to talk to, by the role of that server.",
			ConstLabels: prometheus.Labels{"role": string(role)},
		}, func() float64 {
			if s := f.Server(); s.Addr != "" && (s.Role == role || s.Role == "" && role == noRole) {
				return 1
			}
			return 0
		}))
	}
}
