package failover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/redisnode"
)

// Time limits of a failover by Sentinel. Redis ends the pause of writes by itself after pauseFor, even if
// this process dies; every step that depends on the pause has a shorter limit.
const (
	agreeWait   = 5 * time.Second  // for servers and Sentinels to discover each other
	lookWait    = 12 * time.Second // for the Sentinels to refresh the state of a Redis replica, which they do every 10 s
	pauseFor    = 10 * time.Second
	catchUpWait = 2 * time.Second // for the Redis replicas to receive every write
	promoteWait = 7 * time.Second // for the Sentinels to promote a Redis replica, which takes 1 to 2 s
	finishWait  = 5 * time.Second // for the new primary to accept writes, and for the end of the pause
)

// bySentinel pauses writes, waits until the Redis replicas have every write, and lets the Sentinels promote
// one of them.
//
// Without the pause, SENTINEL FAILOVER loses about a second of writes: clients write to the old primary until
// they learn of the new one, and the Sentinels demote the old one only some 10 s later. The pause ends after
// the old primary has been demoted, so that it refuses the writes that waited instead of losing them.
func (o *operation) bySentinel(ctx context.Context) error {
	var watch watch
	var replicas []string
	wait, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	err := await(wait, func() (err error) {
		if watch, err = o.ask(wait); err == nil {
			replicas, err = o.replicas(wait, watch)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := o.seenAsReplicas(ctx, watch); err != nil {
		return err
	}
	old := watch.primary
	o.report("Failing over from %s to %s; %d Sentinels watch them.", o.cfg.Name(old), strings.ReplaceAll(o.names(replicas), " and ", " or "), len(watch.sentinels))

	began := time.Now()
	promoted, err := o.promote(ctx, watch, replicas)
	if err != nil {
		return err
	}
	// From here on the failover must be completed, even after Ctrl-C.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), finishWait)
	defer cancel()
	if err := o.demote(ctx, old, promoted); err != nil {
		// Do not end the pause: the old primary would accept the writes that wait, and lose them.
		return fmt.Errorf("%s was promoted, but demoting %s failed: its writes stay paused for up to %s, and the Sentinels demote it within about 10 s: %w", o.cfg.Name(promoted), o.cfg.Name(old), pauseFor, err)
	}
	// The pause ends last, so that a client whose write is refused then can already find the new primary.
	err = o.takesWrites(ctx, watch, promoted)
	out := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%s was promoted, but: %w", o.cfg.Name(promoted), err)
	}
	if err := errors.Join(err, o.unpause(ctx, old)); err != nil {
		return err
	}
	o.report("%s is the primary, and %s follows it. Writes were out for %s; none was lost.", o.cfg.Name(promoted), o.cfg.Name(old), seconds(out))
	if err := o.settled(ctx, watch, len(replicas)); err != nil {
		o.report("The Sentinels have not finished yet: %v. Wait for that before the next failover.", err)
	}
	return nil
}

// seenAsReplicas waits until every Sentinel lists every Redis replica as one. Until its next refresh a
// Sentinel lists an old primary that came back as a Redis replica as a primary. It would then take the
// promotion for a misconfiguration and demote the new primary.
func (o *operation) seenAsReplicas(ctx context.Context, w watch) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	for _, sentinel := range w.sentinels {
		err := await(ctx, func() error {
			known, err := o.knownReplicas(ctx, sentinel)
			for _, r := range known {
				if usable(r) && r.Role != redisnode.Replica {
					err = errors.Join(err, fmt.Errorf("%s last saw %s as a primary", o.cfg.Name(sentinel), o.cfg.Name(r.Addr)))
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settled waits until the Sentinels are ready for the next failover: they have moved the other Redis
// replicas to the new primary, and each lists n usable ones.
func (o *operation) settled(ctx context.Context, w watch, n int) error {
	for _, addr := range w.sentinels {
		err := await(ctx, func() error {
			view, err := o.sentinel(ctx, addr)
			if err == nil && view.FailingOver {
				err = fmt.Errorf("%s is still moving the other Redis replicas", o.cfg.Name(addr))
			}
			if err != nil {
				return err
			}
			known, err := o.knownReplicas(ctx, addr)
			seen := 0
			for _, r := range known {
				if usable(r) {
					seen++
				}
			}
			if err != nil || seen < n {
				return errors.Join(err, fmt.Errorf("%s sees %d of %d Redis replicas", o.cfg.Name(addr), seen, n))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watch is the state that the Sentinels agree on.
type watch struct {
	sentinels []string // addresses of the Sentinels that answer
	primary   string   // address
}

// ask queries the Sentinels for the primary. A majority must answer, and all answers must agree.
func (o *operation) ask(ctx context.Context) (watch, error) {
	var w watch
	var silent []string
	known := len(o.cfg.Addr)
	for _, addr := range o.cfg.Addr {
		view, err := o.sentinel(ctx, addr)
		switch {
		case err != nil:
			why := o.cfg.Name(addr)
			if refused(err) {
				why += ": " + err.Error()
			}
			silent = append(silent, why)
			continue
		case view.Down || view.FailingOver:
			return w, fmt.Errorf("%s cannot reach %s or is already replacing it: resolve that first", o.cfg.Name(addr), o.cfg.Name(view.Primary))
		case w.primary != "" && w.primary != view.Primary:
			return w, fmt.Errorf("the Sentinels disagree on the primary: %s reports %s, %s reports %s", o.cfg.Name(w.sentinels[0]), o.cfg.Name(w.primary), o.cfg.Name(addr), o.cfg.Name(view.Primary))
		}
		known = max(known, view.OtherSentinels+1)
		w.primary = view.Primary
		w.sentinels = append(w.sentinels, addr)
	}
	if 2*len(w.sentinels) <= known {
		return w, fmt.Errorf("only %d of %d Sentinels answer, too few for a failover; no answer from %s", len(w.sentinels), known, strings.Join(silent, ", "))
	}
	return w, nil
}

// sentinel queries one Sentinel.
func (o *operation) sentinel(ctx context.Context, addr string) (redisnode.SentinelView, error) {
	c, err := o.servers.sentinel(ctx, addr)
	if err != nil {
		return redisnode.SentinelView{}, err
	}
	return redisnode.AskSentinel(ctx, c, o.cfg.MasterName)
}

// replicas returns the addresses of the Redis replicas that the Sentinels may promote. All that answer must
// replicate the primary, even those that the Sentinels cannot use at the moment: that may change before
// they choose one.
func (o *operation) replicas(ctx context.Context, w watch) ([]string, error) {
	known, err := o.knownReplicas(ctx, w.sentinels[0])
	if err != nil {
		return nil, fmt.Errorf("query %s for the Redis replicas: %w", o.cfg.Name(w.sentinels[0]), err)
	}
	var found []string
	reached := false
	for _, r := range known {
		if !r.Promotable {
			continue
		}
		if _, err := o.replication(ctx, r.Addr); err != nil && !usable(r) {
			continue // the Sentinels cannot reach it either
		}
		if err := o.follows(ctx, r.Addr, w.primary); err != nil {
			return nil, err
		}
		found = append(found, r.Addr)
		reached = reached || usable(r)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is nothing to fail over to: no Redis replica of %s is connected", o.cfg.Name(w.primary))
	}
	if !reached {
		return nil, fmt.Errorf("%s cannot reach %s", o.cfg.Name(w.sentinels[0]), o.names(found))
	}
	slices.Sort(found)
	return found, nil
}

// usable reports whether the Sentinel that reports r can promote it.
func usable(r redisnode.ReplicaView) bool { return r.Reached && r.InfoSeen }

func (o *operation) knownReplicas(ctx context.Context, sentinel string) ([]redisnode.ReplicaView, error) {
	c, err := o.servers.sentinel(ctx, sentinel)
	if err != nil {
		return nil, err
	}
	return redisnode.AskReplicas(ctx, c, o.cfg.MasterName)
}

func (o *operation) replication(ctx context.Context, addr string) (redisnode.Replication, error) {
	c, err := o.servers.redis(ctx, addr)
	if err != nil {
		return redisnode.Replication{}, err
	}
	return redisnode.AskReplication(ctx, c)
}

// follows returns nil if the server at addr is a Redis replica of primary with a working link, else the
// reason why not.
func (o *operation) follows(ctx context.Context, addr, primary string) error {
	r, err := o.replication(ctx, addr)
	switch {
	case err != nil:
		return fmt.Errorf("ask %s: %w", o.cfg.Name(addr), err)
	case r.Role != redisnode.Replica || r.Upstream != primary:
		return fmt.Errorf("%s does not replicate %s: resolve that first", o.cfg.Name(addr), o.cfg.Name(primary))
	case !r.LinkUp:
		return fmt.Errorf("the link of %s to %s is down: resolve that first", o.cfg.Name(addr), o.cfg.Name(primary))
	}
	return nil
}

// promote pauses writes on the primary, waits until all Redis replicas have every write, and lets the
// Sentinels promote one, whose address it returns. After an error it ends the pause.
func (o *operation) promote(ctx context.Context, w watch, replicas []string) (promoted string, err error) {
	c, err := o.servers.redis(ctx, w.primary)
	if err != nil {
		return "", err
	}
	began := time.Now()
	err = c.Do(ctx, "client", "pause", pauseFor.Milliseconds(), "write").Err()
	if refused(err) {
		return "", fmt.Errorf("%s refuses to pause writes: %w", o.cfg.Name(w.primary), err)
	}
	if err == nil {
		err = o.awaitOffset(ctx, w.primary, replicas)
	}
	if err == nil {
		promoted, err = o.sentinelFailover(ctx, w, replicas)
	}
	if err == nil {
		return promoted, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWait)
	defer cancel()
	if unpaused := o.unpause(ctx, w.primary); unpaused != nil {
		return "", errors.Join(err, unpaused)
	}
	o.report("%s accepts writes again; they were paused for %s.", o.cfg.Name(w.primary), seconds(time.Since(began)))
	return "", err
}

// refused reports whether err is an error reply, so that the command has certainly not run. After any other
// error it may have.
func refused(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// sentinelFailover lets the Sentinels promote a Redis replica and returns its address.
func (o *operation) sentinelFailover(ctx context.Context, w watch, replicas []string) (promoted string, err error) {
	c, err := o.servers.sentinel(ctx, w.sentinels[0])
	if err != nil {
		return "", err
	}
	if err := c.Do(ctx, "sentinel", "failover", o.cfg.MasterName).Err(); refused(err) {
		return "", fmt.Errorf("%s refuses the failover: %w", o.cfg.Name(w.sentinels[0]), err)
	}
	// The Sentinels continue even if the caller is cancelled, so the wait does too. It polls the Redis
	// replicas, because the Sentinels notice a promotion up to a second later. That second counts: until
	// the old primary is demoted, its pings advance its replication offset, and after one that the promoted
	// server has not received, the old primary needs a full resynchronization.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promoteWait)
	defer cancel()
	err = await(ctx, func() error {
		for _, addr := range replicas {
			if r, err := o.replication(ctx, addr); err == nil && r.Role == redisnode.Primary {
				promoted = addr
				return nil
			}
		}
		// The Sentinels may have promoted a server that did not answer in replicas().
		for _, sentinel := range w.sentinels {
			if view, err := o.sentinel(ctx, sentinel); err == nil && view.Primary != w.primary {
				promoted = view.Primary
				return nil
			}
		}
		return fmt.Errorf("the Sentinels have not promoted a Redis replica within %s; if they still do, about a second of writes may be lost", promoteWait)
	})
	return promoted, err
}

// awaitOffset waits until all Redis replicas have reached the replication offset of the paused primary.
func (o *operation) awaitOffset(ctx context.Context, primary string, replicas []string) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	target, err := o.replication(ctx, primary)
	if err != nil {
		return fmt.Errorf("ask %s: %w", o.cfg.Name(primary), err)
	}
	for _, addr := range replicas {
		err := await(ctx, func() error {
			r, err := o.replication(ctx, addr)
			if err != nil {
				return fmt.Errorf("ask %s: %w", o.cfg.Name(addr), err)
			}
			if r.Role != redisnode.Replica || r.History != target.History {
				return fmt.Errorf("%s does not replicate %s any more", o.cfg.Name(addr), o.cfg.Name(primary))
			}
			if r.Offset < target.Offset {
				return fmt.Errorf("%s is %d bytes behind after %s", o.cfg.Name(addr), target.Offset-r.Offset, catchUpWait)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	o.report("Writes are paused on %s; %s %s all of its writes.", o.cfg.Name(primary), o.names(replicas), haveOrHas(len(replicas)))
	return nil
}

func haveOrHas(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// demote makes the old primary a Redis replica of the new one. The Sentinels would do so about 10 s later.
func (o *operation) demote(ctx context.Context, old, promoted string) error {
	host, port, err := net.SplitHostPort(promoted)
	if err != nil {
		return err
	}
	return await(ctx, func() error {
		c, err := o.servers.redis(ctx, old)
		if err != nil {
			return err
		}
		if err := c.Do(ctx, "replicaof", host, port).Err(); err != nil {
			return err
		}
		// Persist it for the next start. Servers without a configuration file refuse, which does not matter.
		_ = c.ConfigRewrite(ctx).Err()
		return nil
	})
}

// unpause ends the pause of writes.
func (o *operation) unpause(ctx context.Context, addr string) error {
	err := await(ctx, func() error {
		c, err := o.servers.redis(ctx, addr)
		if err != nil {
			return err
		}
		return c.ClientUnpause(ctx).Err()
	})
	if err != nil {
		err = fmt.Errorf("ending the pause of writes on %s failed; it ends by itself within %s: %w", o.cfg.Name(addr), pauseFor, err)
	}
	return err
}

// takesWrites waits until all Sentinels report the new primary and it accepts writes. With
// min-replicas-to-write it accepts them once enough Redis replicas have connected.
func (o *operation) takesWrites(ctx context.Context, w watch, promoted string) error {
	for _, s := range w.sentinels {
		err := await(ctx, func() error {
			view, err := o.sentinel(ctx, s)
			if err == nil && view.Primary != promoted {
				err = fmt.Errorf("%s still reports %s", o.cfg.Name(s), o.cfg.Name(view.Primary))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return await(ctx, func() error {
		r, err := o.replication(ctx, promoted)
		switch {
		case err != nil:
			return fmt.Errorf("ask %s: %w", o.cfg.Name(promoted), err)
		case r.Role != redisnode.Primary:
			return fmt.Errorf("%s is not a primary", o.cfg.Name(promoted))
		case r.GoodReplicas == 0:
			return fmt.Errorf("%s refuses writes until a Redis replica is connected", o.cfg.Name(promoted))
		}
		return nil
	})
}
