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

// Bounds of a failover by Sentinel. Writes are paused for pauseFor at most, even if this process dies
// in the middle; all that needs the pause ends before that.
const (
	agreeWait   = 5 * time.Second  // for servers and Sentinels that have not found each other yet
	lookWait    = 12 * time.Second // for the Sentinels to look at a Redis replica again; they do so every 10 s
	pauseFor    = 10 * time.Second
	catchUpWait = 2 * time.Second // for the Redis replicas to have every write
	promoteWait = 7 * time.Second // for the Sentinels to promote one; it takes 1 to 2 s
	finishWait  = 5 * time.Second // for the new primary to take writes, and to end the pause
)

// bySentinel lets the Sentinels promote a Redis replica that has every write.
//
// SENTINEL FAILOVER alone loses about a second of writes: clients write to the old primary until they
// learn of the new one, and the Sentinels demote the old one only some 10 s later. So writes are paused
// first, the Redis replicas get what they lack, and the pause ends only after the old primary has been
// demoted: writes that waited on it are refused then, and none is lost.
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

	begun := time.Now()
	promoted, err := o.promote(ctx, watch, replicas)
	if err != nil {
		return err
	}
	// From here on it has to be finished, also if somebody presses Ctrl-C.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), finishWait)
	defer cancel()
	if err := o.demote(ctx, old, promoted); err != nil {
		// The pause stays: writes that waited for its end would be taken and lost.
		return fmt.Errorf("%s was promoted, but %s cannot be told to follow it: its writes stay paused for %s at most, the Sentinels demote it within about 10 s: %w", o.cfg.Name(promoted), o.cfg.Name(old), pauseFor, err)
	}
	// The pause ends last, so that a client that waits on the old primary is refused only when it finds the
	// new one.
	err = o.takesWrites(ctx, watch, promoted)
	out := time.Since(begun)
	if err != nil {
		err = fmt.Errorf("%s was promoted, but: %w", o.cfg.Name(promoted), err)
	}
	if err := errors.Join(err, o.unpause(ctx, old)); err != nil {
		return err
	}
	o.report("%s is the primary, and %s follows it. Writes were out for %s; none was lost.", o.cfg.Name(promoted), o.cfg.Name(old), seconds(out))
	if err := o.settled(ctx, watch, len(replicas)); err != nil {
		o.report("The Sentinels are not done yet: %v. Wait for that before the next failover.", err)
	}
	return nil
}

// seenAsReplicas waits until no Sentinel has a Redis replica in mind as a primary, as happens when an old
// primary comes back as one. Such a Sentinel would take a promotion for the same mistake, and make a Redis
// replica of the new primary again.
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

// settled waits until the Sentinels are ready for the next failover: they have given the other Redis
// replicas their new primary, and see n of them.
func (o *operation) settled(ctx context.Context, w watch, n int) error {
	for _, addr := range w.sentinels {
		err := await(ctx, func() error {
			view, err := o.sentinel(ctx, addr)
			if err == nil && view.FailingOver {
				err = fmt.Errorf("%s still moves the other Redis replicas", o.cfg.Name(addr))
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

// watch is what the Sentinels agree on.
type watch struct {
	sentinels []string // addresses of the Sentinels that answer
	primary   string   // address
}

// ask asks the Sentinels for the primary. Most of them have to answer, and all that do have to agree.
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
			return w, fmt.Errorf("%s does not reach %s, or replaces it already: see to that first", o.cfg.Name(addr), o.cfg.Name(view.Primary))
		case w.primary != "" && w.primary != view.Primary:
			return w, fmt.Errorf("the Sentinels do not agree on the primary: %s names %s, %s names %s", o.cfg.Name(w.sentinels[0]), o.cfg.Name(w.primary), o.cfg.Name(addr), o.cfg.Name(view.Primary))
		}
		known = max(known, view.OtherSentinels+1)
		w.primary = view.Primary
		w.sentinels = append(w.sentinels, addr)
	}
	if 2*len(w.sentinels) <= known {
		return w, fmt.Errorf("%d of %d Sentinels answer, which is too few for a failover; not %s", len(w.sentinels), known, strings.Join(silent, ", "))
	}
	return w, nil
}

// sentinel returns what a Sentinel says.
func (o *operation) sentinel(ctx context.Context, addr string) (redisnode.SentinelView, error) {
	c, err := o.servers.sentinel(ctx, addr)
	if err != nil {
		return redisnode.SentinelView{}, err
	}
	return redisnode.AskSentinel(ctx, c, o.cfg.MasterName)
}

// replicas returns the addresses of the Redis replicas that may be promoted. All that answer have to
// follow the primary, also those that the Sentinels cannot use at the moment: that may change before
// they choose.
func (o *operation) replicas(ctx context.Context, w watch) ([]string, error) {
	known, err := o.knownReplicas(ctx, w.sentinels[0])
	if err != nil {
		return nil, fmt.Errorf("ask %s for the Redis replicas: %w", o.cfg.Name(w.sentinels[0]), err)
	}
	var found []string
	reached := false
	for _, r := range known {
		if !r.Promotable {
			continue
		}
		if _, err := o.replication(ctx, r.Addr); err != nil && !usable(r) {
			continue // the Sentinels do not reach it either
		}
		if err := o.follows(ctx, r.Addr, w.primary); err != nil {
			return nil, err
		}
		found = append(found, r.Addr)
		reached = reached || usable(r)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no Redis replica of %s is connected: there is nothing to fail over to", o.cfg.Name(w.primary))
	}
	if !reached {
		return nil, fmt.Errorf("%s does not reach %s", o.cfg.Name(w.sentinels[0]), o.names(found))
	}
	slices.Sort(found)
	return found, nil
}

// usable reports whether a Sentinel could promote a Redis replica that it sees like this.
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

// follows reports why a server is not a Redis replica of primary with a working link.
func (o *operation) follows(ctx context.Context, addr, primary string) error {
	r, err := o.replication(ctx, addr)
	switch {
	case err != nil:
		return fmt.Errorf("ask %s: %w", o.cfg.Name(addr), err)
	case r.Role != redisnode.Replica || r.Upstream != primary:
		return fmt.Errorf("%s does not follow %s: see to that first", o.cfg.Name(addr), o.cfg.Name(primary))
	case !r.LinkUp:
		return fmt.Errorf("the link of %s to %s is down: see to that first", o.cfg.Name(addr), o.cfg.Name(primary))
	}
	return nil
}

// promote pauses the primary, waits until every Redis replica has every write, and lets the Sentinels
// promote one, whose address it returns. After an error the primary takes writes again.
func (o *operation) promote(ctx context.Context, w watch, replicas []string) (promoted string, err error) {
	c, err := o.servers.redis(ctx, w.primary)
	if err != nil {
		return "", err
	}
	begun := time.Now()
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
	o.report("Writes go on at %s; they were paused for %s.", o.cfg.Name(w.primary), seconds(time.Since(begun)))
	return "", err
}

// refused reports whether err is the answer of a server, which then has not done what it was asked for.
// After any other error it may have.
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
	// It goes on whatever becomes of the caller. The Redis replicas themselves are asked, because the
	// Sentinels notice a promotion up to a second later. Until it is demoted the old primary goes on
	// pinging its replicas, which counts as part of its history, and after a ping that the promoted one
	// has not seen it would need a full copy of the data.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), promoteWait)
	defer cancel()
	err = await(ctx, func() error {
		for _, addr := range replicas {
			if r, err := o.replication(ctx, addr); err == nil && r.Role == redisnode.Primary {
				promoted = addr
				return nil
			}
		}
		// One that did not answer before can still be what they choose.
		for _, sentinel := range w.sentinels {
			if view, err := o.sentinel(ctx, sentinel); err == nil && view.Primary != w.primary {
				promoted = view.Primary
				return nil
			}
		}
		return fmt.Errorf("the Sentinels have promoted none within %s; if they still do, about a second of writes can be lost", promoteWait)
	})
	return promoted, err
}

// awaitOffset waits until the Redis replicas have processed all that the paused primary has sent.
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
				return fmt.Errorf("%s does not follow %s any more", o.cfg.Name(addr), o.cfg.Name(primary))
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
	o.report("Writes are paused on %s; %s %s every one that it took.", o.cfg.Name(primary), o.names(replicas), haveOrHas(len(replicas)))
	return nil
}

func haveOrHas(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// demote makes the old primary a Redis replica of the new one, as the Sentinels would do later.
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
		// For its next start. Where there is no file to write to, the Sentinels have none either.
		_ = c.ConfigRewrite(ctx).Err()
		return nil
	})
}

// unpause lets writes go on at a server.
func (o *operation) unpause(ctx context.Context, addr string) error {
	err := await(ctx, func() error {
		c, err := o.servers.redis(ctx, addr)
		if err != nil {
			return err
		}
		return c.ClientUnpause(ctx).Err()
	})
	if err != nil {
		err = fmt.Errorf("writes at %s stay paused for %s at most, because the pause cannot be ended: %w", o.cfg.Name(addr), pauseFor, err)
	}
	return err
}

// takesWrites waits until all Sentinels name the new primary, and it takes writes: with
// min-replicas-to-write it does so once Redis replicas have connected to it.
func (o *operation) takesWrites(ctx context.Context, w watch, promoted string) error {
	for _, s := range w.sentinels {
		err := await(ctx, func() error {
			view, err := o.sentinel(ctx, s)
			if err == nil && view.Primary != promoted {
				err = fmt.Errorf("%s still names %s", o.cfg.Name(s), o.cfg.Name(view.Primary))
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
