package redistest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// sentinelView is one Sentinel's view of the deployment, or the error of the query.
type sentinelView struct {
	sentinel  *Server
	primary   *Server // nil if err is not
	epoch     int
	unsettled string // reason why the view is not stable yet, empty if it is
	err       error
}

// views queries all Sentinels in parallel.
func (d *SentinelDeployment) views() []sentinelView {
	views := make([]sentinelView, len(d.sentinels))
	var all sync.WaitGroup
	for i, s := range d.sentinels {
		all.Go(func() { views[i] = d.view(s) })
	}
	all.Wait()
	return views
}

func (d *SentinelDeployment) view(s *Server) sentinelView {
	v := sentinelView{sentinel: s}
	var addr []string
	var primary map[string]string
	var replicas []map[string]string
	v.err = s.ask(func(ctx context.Context, c *redis.SentinelClient) (err error) {
		if primary, err = c.Master(ctx, SentinelName).Result(); err != nil {
			return err
		}
		if replicas, err = c.Replicas(ctx, SentinelName).Result(); err != nil {
			return err
		}
		// Clients use this address. It is read last, so it may be newer than the epoch but never older.
		addr, err = c.GetMasterAddrByName(ctx, SentinelName).Result()
		return err
	})
	if v.err != nil {
		return v
	}
	v.epoch, v.err = strconv.Atoi(primary["config-epoch"])
	if v.err != nil {
		return v
	}
	v.unsettled = unsettled(primary, replicas, len(d.servers)-1, len(d.sentinels)-1)
	for _, server := range d.servers {
		if server.Announced() == strings.Join(addr, ":") {
			v.primary = server
			return v
		}
	}
	v.err = fmt.Errorf("primary %v, reported by Sentinel %s, is not part of the deployment", addr, s.Addr())
	return v
}

func unsettled(primary map[string]string, replicas []map[string]string, numReplicas, numSentinels int) string {
	if primary["flags"] != "master" {
		return "flags of the primary are " + primary["flags"]
	}
	if primary["num-other-sentinels"] != strconv.Itoa(numSentinels) {
		return "it has discovered " + primary["num-other-sentinels"] + " other Sentinels"
	}
	if len(replicas) != numReplicas {
		return fmt.Sprintf("it has discovered %d replicas", len(replicas))
	}
	for _, r := range replicas {
		// The other fields of a replica may be 10 s old.
		if r["flags"] != "slave" {
			return fmt.Sprintf("flags of replica %s are %s", r["name"], r["flags"])
		}
	}
	return ""
}

// ask runs f with a new connection to one Sentinel, for at most queryTimeout.
func (s *Server) ask(f func(context.Context, *redis.SentinelClient) error) error {
	if err := s.running(); err != nil {
		return err
	}
	c := redis.NewSentinelClient(s.clientOptions())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	if err := f(ctx, c); err != nil {
		return fmt.Errorf("query Sentinel %s: %w", s.Addr(), err)
	}
	return nil
}
