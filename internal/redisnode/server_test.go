package redisnode

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// Server and the metrics show the server in use, its role and the number of moves, and when there is none.
func TestServer(t *testing.T) {
	redistest.Require(t)
	primary, other := redistest.Start(t), redistest.Start(t)
	replica := redistest.Start(t, redistest.ReplicaOf(primary))
	replica.WaitReplicaOnline()
	port := fmt.Sprint(primary.Port())
	forward(t, "127.0.0.2", port, replica.Addr())
	forward(t, "127.0.0.3", port, other.Addr())
	dns := &fakeDNS{ips: []string{"127.0.0.1"}}
	f := finder(t, Config{Addrs: []string{"redis.test:" + port}, LookupHost: dns.lookup, ReadFrom: Replica})
	reg := prometheus.NewRegistry()
	f.Register(reg)
	want := func(s Server, primaries, replicas int) {
		t.Helper()
		eventually.Nil(t, func() error {
			_, _ = f.Node(t.Context()) // triggers the next DNS lookup
			got := f.Server()
			if s.Addr != "" && !strings.HasPrefix(got.Product, "Redis ") && !strings.HasPrefix(got.Product, "Valkey ") {
				return fmt.Errorf("product %q", got.Product)
			}
			if got.Product = ""; got != s {
				return fmt.Errorf("server %+v, want %+v", got, s)
			}
			return testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP redis_moves_total Moves of this process to another Redis server.
# TYPE redis_moves_total counter
redis_moves_total %d
# HELP redis_server_found 1 while this process has found a usable Redis server, by the role of that server.
# TYPE redis_server_found gauge
redis_server_found{role="primary"} %d
redis_server_found{role="replica"} %d
redis_server_found{role="unknown"} 0
`, s.Moves, primaries, replicas)))
		})
	}
	want(Server{Addr: primary.Addr(), Role: Primary}, 1, 0)
	dns.set("127.0.0.2")
	want(Server{Addr: "127.0.0.2:" + port, Role: Replica, Upstream: primary.Addr(), Moves: 1}, 0, 1)
	replica.ReplicaOf(other) // detected by CheckRole
	if err := f.CheckRole(t.Context(), node(t, f)); err != nil {
		t.Fatal(err)
	}
	want(Server{Addr: "127.0.0.2:" + port, Role: Replica, Upstream: other.Addr(), Moves: 1}, 0, 1)
	f.Leave(node(t, f), errors.New("test"))
	want(Server{Addr: "127.0.0.2:" + port, Role: Replica, Upstream: other.Addr(), Moves: 1}, 0, 1) // finding the same server again is not a move
	dns.set("127.0.0.3")
	want(Server{Addr: "127.0.0.3:" + port, Role: Primary, Moves: 2}, 1, 0)
	n := node(t, f)
	dns.set()
	f.Leave(n, errors.New("test"))
	want(Server{Moves: 2}, 0, 0)
}

// A server that refuses INFO is used, with an unknown role.
func TestServerWithoutInfo(t *testing.T) {
	f := finder(t, Config{Addrs: []string{fakeServer(t, map[string]string{"EVALSHA_RO": "-NOSCRIPT"})}})
	reg := prometheus.NewRegistry()
	f.Register(reg)
	n := node(t, f)
	if got, want := f.Server(), (Server{Addr: n.Addr}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP redis_server_found 1 while this process has found a usable Redis server, by the role of that server.
# TYPE redis_server_found gauge
redis_server_found{role="primary"} 0
redis_server_found{role="replica"} 0
redis_server_found{role="unknown"} 1
`), "redis_server_found"); err != nil {
		t.Error(err)
	}
}
