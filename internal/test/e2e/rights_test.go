package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// The rights listed in redis/users.acl and docs/high-availability.md, separated by spaces.
const (
	writerRights   = "~{posts:*}:* &posts_updates +info +time +script|load +evalsha +get +getrange +exists +set +mset +del +xadd +xrevrange +publish"
	readerRights   = "%R~{posts:*}:* &posts_updates +info +dbsize +evalsha_ro +get +mget +scan +xrange +xrevrange +subscribe"
	sentinelRights = "+sentinel|master +sentinel|get-master-addr-by-name"
)

// rights is a deployment for tests that take one right at a time away from a user.
type rights struct {
	t       *testing.T
	servers []*redistest.Server // servers on which the users are created
	nodes   func(*redisnode.Config)
}

// grant creates a user with exactly these rights on all servers and returns the configuration to connect as
// that user.
func (r *rights) grant(user, list string) func(*redisnode.Config) {
	r.t.Helper()
	args := []any{"ACL", "SETUSER", user, "reset", "on", ">secret"}
	for rule := range strings.FieldsSeq(list) {
		args = append(args, rule)
	}
	for _, s := range r.servers {
		if err := s.Client(r.t).Do(r.t.Context(), args...).Err(); err != nil {
			r.t.Fatal(err)
		}
	}
	return func(c *redisnode.Config) {
		r.nodes(c)
		c.Username, c.Password = user, "secret"
	}
}

func without(list, right string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(list), func(s string) bool { return s == right }), " ")
}

// writes performs all operations of a writer with a publisher.
func (r *rights) writes(nodes func(*redisnode.Config), replicas int) error {
	p, err := publisher.New(publisher.Config{Redis: nodetest.New(r.t, "", nodes), Replicas: replicas})
	if err != nil {
		return err
	}
	const key = "key of the writer"
	value := []byte("{}")
	for _, writes := range [][]protocol.Write{
		{{Op: protocol.Set, Key: key, Value: value}},
		{{Op: protocol.Set, Key: key, Value: value, If: protocol.Condition{Tags: []protocol.Tag{{}}}}},
		{{Op: protocol.Delete, Key: key}},
		{{Op: protocol.Set, Key: key, Value: value}, {Op: protocol.Set, Key: "another", Value: value}},
	} {
		ctx, cancel := context.WithTimeout(r.t.Context(), patience)
		_, err := p.Write(ctx, writes...)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// reads waits until a replica is ready, or until it reports that Redis refuses it, and returns its messages.
func (r *rights) reads(nodes func(*redisnode.Config)) (ready bool, says string) {
	r.t.Helper()
	var log logtest.Buffer
	replica, err := replica.New(replica.Config{Redis: nodetest.New(r.t, "", nodes), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		replica.Run(ctx)
	}()
	defer func() {
		stop()
		<-done
		replica.Close()
	}()
	eventually.Nil(r.t, func() error {
		s := replica.Status()
		ready, says = s.Ready && s.Synced, s.Problem+"\n"+log.String()
		if !ready && !refusal(says) {
			return fmt.Errorf("neither ready nor refused: %+v, log %s", s, log.String())
		}
		return nil
	})
	return ready, says
}

// refusal reports whether a text quotes Redis's error reply for a missing right.
func refusal(text string) bool {
	return slices.ContainsFunc([]string{"NOPERM", "The user executing the script can't", "ACL failure in script"},
		func(words string) bool { return strings.Contains(text, words) })
}

// namesRight reports whether a text names the command that a right allows. Redis 7.0 does not name commands in
// scripts.
func namesRight(text, right string) bool {
	command := strings.TrimLeft(right, "+&%R~")
	return strings.Contains(strings.ToLower(text), "'"+command) || strings.Contains(text, "run "+strings.ToUpper(command)+" on ") || strings.Contains(text, "The user executing the script can't") ||
		right[0] != '+' && refusal(text)
}

// checkWriter takes each right away from a writer in turn. Without a right in harmless it must still work.
func (r *rights) checkWriter(list string, replicas int, harmless ...string) {
	r.t.Helper()
	if err := r.writes(r.grant("writer", list), replicas); err != nil {
		r.t.Fatalf("the writer's rights are not enough: %v", err)
	}
	for right := range strings.FieldsSeq(list) {
		r.flushScripts()
		err := r.writes(r.grant("writer-less", without(list, right)), replicas)
		switch {
		case slices.Contains(harmless, right) != (err == nil):
			r.t.Errorf("a writer without %s: %v", right, err)
		case err != nil && (!refusal(err.Error()) || !namesRight(err.Error(), right)):
			r.t.Errorf("a writer without %s does not report the missing right: %v", right, err)
		}
	}
}

func (r *rights) checkReader(list string, harmless ...string) {
	r.t.Helper()
	r.flushScripts()
	loads := r.grant("writer", writerRights)
	if ready, says := r.reads(r.grant("reader", list)); ready || !strings.Contains(says, "a writer of this version") {
		r.t.Errorf("a reader without its script: ready %v, %s", ready, says)
	}
	if err := r.check(loads); err != nil {
		r.t.Fatal(err)
	}
	if ready, says := r.reads(r.grant("reader", list)); !ready {
		r.t.Fatalf("the reader's rights are not enough: %s", says)
	}
	for right := range strings.FieldsSeq(list) {
		ready, says := r.reads(r.grant("reader-less", without(list, right)))
		switch {
		case slices.Contains(harmless, right) != ready:
			r.t.Errorf("a reader without %s: ready %v, %s", right, ready, says)
		case !ready && !namesRight(says, right):
			r.t.Errorf("a reader without %s does not report the missing right: %s", right, says)
		}
	}
}

// check runs the periodic check of a writer.
func (r *rights) check(nodes func(*redisnode.Config)) error {
	p, err := publisher.New(publisher.Config{Redis: nodetest.New(r.t, "", nodes)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return p.Check(ctx)
}

// flushScripts deletes the cached scripts of all servers, like a restart.
func (r *rights) flushScripts() {
	r.t.Helper()
	for _, s := range r.servers {
		if err := s.Client(r.t).ScriptFlush(r.t.Context()).Err(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Writers and readers report a missing right with Redis's error reply.
func TestRights(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	primary := redistest.Start(t)
	replica := redistest.Start(t, redistest.ReplicaOf(primary))
	replica.WaitReplicaInSync(primary)
	r := &rights{t, []*redistest.Server{primary}, func(c *redisnode.Config) { c.Addrs = []string{primary.Addr()} }}
	t.Run("writer", func(t *testing.T) { r.checkWriter(writerRights, 0, "+info") })
	t.Run("writer with WRITE_REPLICAS", func(t *testing.T) { r.checkWriter(writerRights+" +wait", 1, "+info") })
	t.Run("reader", func(t *testing.T) { r.checkReader(readerRights) })
}

// In a Redis Cluster the users need CLUSTER SLOTS, and those of Redis replicas READONLY.
func TestRightsInACluster(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	d := redistest.StartCluster(t)
	key := protocol.ShardKey("posts")
	r := &rights{t, d.Servers(), func(c *redisnode.Config) { c.Addrs, c.Key = d.Addrs(), key }}
	const slots, readOnly = "+cluster|slots", "+readonly"
	if err := r.writes(r.grant("writer", writerRights+" "+slots), 0); err != nil {
		t.Fatalf("the writer's rights are not enough: %v", err)
	}
	if err := r.writes(r.grant("writer-less", writerRights), 0); err == nil || !namesRight(err.Error(), slots) {
		t.Errorf("a writer without %s: %v", slots, err)
	}
	if ready, says := r.reads(r.grant("reader", readerRights+" "+slots)); !ready {
		t.Fatalf("the reader's rights are not enough: %s", says)
	}
	if ready, says := r.reads(r.grant("reader-less", readerRights)); ready || !namesRight(says, slots) {
		t.Errorf("a reader without %s: ready %v, %s", slots, ready, says)
	}
	primaries := r.nodes
	r.nodes = func(c *redisnode.Config) {
		primaries(c)
		c.ReadFrom = redisnode.Replica
	}
	const load = "+script|load" // needed because no writer loads scripts on Redis replicas
	if ready, says := r.reads(r.grant("relay", readerRights+" "+load+" "+slots+" "+readOnly)); !ready {
		t.Fatalf("the rights of a reader from Redis replicas are not enough: %s", says)
	}
	if ready, says := r.reads(r.grant("relay-less", readerRights+" "+load+" "+slots)); ready || !namesRight(says, readOnly) {
		t.Errorf("a reader from Redis replicas without %s: ready %v, %s", readOnly, ready, says)
	}
}

// On the Sentinels the user needs two commands, and a third one to read from Redis replicas.
func TestRightsAtSentinels(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	d := redistest.StartSentinel(t, redistest.SentinelOptions{DownAfter: haDownAfter})
	at := &rights{t: t, servers: d.Sentinels()}
	const replicas = "+sentinel|replicas"
	for _, tt := range []struct {
		from redisnode.Role
		list string
	}{
		{redisnode.Primary, sentinelRights},
		{redisnode.Replica, sentinelRights + " " + replicas},
	} {
		find := func(user, list string) error {
			at.nodes = func(*redisnode.Config) {}
			at.grant(user, list)
			f := nodetest.New(t, "", func(c *redisnode.Config) {
				c.Addrs, c.MasterName, c.ReadFrom = d.Addrs(), redistest.SentinelName, tt.from
				c.SentinelUsername, c.SentinelPassword = user, "secret"
			})
			_, err := f.Node(t.Context())
			return err
		}
		if err := find("finder", tt.list); err != nil {
			t.Fatalf("the rights on the Sentinels are not enough to find a %s: %v", tt.from, err)
		}
		for right := range strings.FieldsSeq(tt.list) {
			if err := find("finder-less", without(tt.list, right)); err == nil || !namesRight(err.Error(), right) {
				t.Errorf("search for a %s without %s on the Sentinels: %v", tt.from, right, err)
			}
		}
	}
}
