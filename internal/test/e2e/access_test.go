package e2e

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// TestAccessList runs Redis with the ACL of the Docker stack. Each user must have the rights that it needs,
// and no others.
func TestAccessList(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	server := redistest.Start(t, redistest.Password(password("admin")), redistest.Config("aclfile "+accessList(t)))
	proxy := faultnet.NewProxy(t, server.Addr())
	nodesOf := func(user string) *redisnode.Finder {
		return nodetest.New(t, proxy.Addr(), func(c *redisnode.Config) {
			if c.Username = user; user != "" {
				c.Password = password(user)
			}
		})
	}
	as := func(user string) *redis.Client {
		o := &redis.Options{Addr: server.Addr(), Username: user, MaxRetries: -1, DisableIdentity: true}
		if user != "" {
			o.Password = password(user)
		}
		c := redis.NewClient(o)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	exporter := as("exporter")

	publisher, err := publisher.New(publisher.Config{Redis: nodesOf("writer")})
	if err != nil {
		t.Fatal(err)
	}
	write := func(w protocol.Write) {
		t.Helper()
		if _, err := publisher.Write(t.Context(), w); err != nil {
			t.Fatalf("the writer cannot write: %v", err)
		}
	}
	write(protocol.Write{Op: protocol.Set, Key: "before", Value: []byte("{}")})
	r := startReplica(t, nodesOf("reader"))
	eventually.True(t, "replica that is ready", func() bool { return r.Status().Ready })
	write(protocol.Write{Op: protocol.Set, Key: "live", Value: []byte("{}"), If: protocol.Condition{Absent: true}})
	write(protocol.Write{Op: protocol.Set, Key: "live", Value: []byte("[]"), If: protocol.Condition{Tags: []protocol.Tag{{}}}})
	write(protocol.Write{Op: protocol.Delete, Key: "before"})
	eventually.True(t, "update in the replica", func() bool {
		_, live := r.Get([]byte("live"))
		_, before := r.Get([]byte("before"))
		return live == store.Hit && before == store.Absent
	})
	proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", faultnet.CutAtReply) // makes the writer search the log for its write
	write(protocol.Write{Op: protocol.Set, Key: "live", Value: []byte("[]")})
	if _, found, err := r.Fetch(t.Context(), "live", replica.Min{}); err != nil || !found {
		t.Errorf("the reader cannot read from Redis: found %v, %v", found, err)
	}
	if !r.WaitFor(t.Context(), replica.Min{Latest: true}) {
		t.Error("the reader cannot ask for the head")
	}
	if err := as("reader").Time(t.Context()).Err(); err != nil {
		t.Errorf("the reader cannot read Redis's clock: %v", err)
	}
	for _, command := range []string{"info all", "config get *", "slowlog len", "slowlog get 1", "latency latest", "latency histogram", "client setname redis_exporter"} {
		if err := exporter.Do(t.Context(), fields(command)...).Err(); err != nil {
			t.Errorf("the exporter cannot %s: %v", command, err)
		}
	}
	info, err := exporter.Info(t.Context(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if name, n, _ := strings.Cut(strings.TrimSpace(line), ":"); strings.HasPrefix(name, "acl_access_denied_") && n != "0" {
			t.Errorf("Redis refused a command that the programs need: %s is %s", name, n)
		}
	}

	const value = "{posts:0}:p:live"
	refused := map[string][]string{
		"": {"ping", "get " + value, "info", "subscribe posts_updates", "command"},
		"reader": {
			"set " + value + " x", "del " + value, "expire " + value + " 1", "xadd {posts:0}:log * e x", "xtrim {posts:0}:log maxlen 0",
			"publish posts_updates x", "subscribe others", "psubscribe *", "get others",
			"eval return(redis.call('set',KEYS[1],'x')) 1 " + value,
			"eval_ro return(redis.call('set',KEYS[1],'x')) 1 " + value,
			"eval_ro return(redis.call('publish','posts_updates','x')) 0",
			"eval_ro return(redis.call('get','others')) 0",
			"flushall", "config get *", "config set appendfsync no", "acl list", "shutdown", "keys *", "replicaof no one", "script flush",
		},
		"writer": {
			"set others x", "get others", "publish others x", "eval return(redis.call('set','others','x')) 0",
			"flushall", "config set appendfsync no", "acl list", "shutdown", "keys *", "subscribe posts_updates", "script flush",
		},
		"exporter": {
			"get " + value, "set " + value + " x", "eval return(1) 0", "scan 0", "config set appendfsync no",
			"slowlog reset", "client list", "client kill type normal", "subscribe posts_updates", "acl list",
		},
	}
	for user, commands := range refused {
		client := as(user)
		for _, command := range commands {
			if err := client.Do(t.Context(), fields(command)...).Err(); !denied(err) {
				t.Errorf("user %q may run %q: %v", user, command, err)
			}
		}
	}
	// Redis replays its append-only file with the rights of the default user.
	server.Restart()
	if got := as("writer").Get(t.Context(), value).Val(); !strings.HasSuffix(got, "[]") {
		t.Errorf("after the refused commands and a restart the post is %q", got)
	}
}

// password returns a password with characters that are special in a shell or in sed.
func password(user string) string { return user + "/&$HOME" }

// accessList makes redis/start.sh write the ACL file of the Docker stack and returns its path.
func accessList(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "users.acl")
	// A fake redis-server that exits at once, so that the script ends after it has written the file.
	nothing, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(nothing, filepath.Join(dir, "redis-server")); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "ACL_FILE=" + file}
	start := func() ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "sh", "../../../redis/start.sh")
		cmd.Env = env
		return cmd.CombinedOutput()
	}
	for _, user := range []string{"admin", "writer", "reader", "exporter"} {
		variable := "REDIS_" + strings.ToUpper(user) + "_PASSWORD"
		if out, err := start(); err == nil || !strings.Contains(string(out), variable) {
			t.Errorf("start.sh without %s: %v, %s", variable, err, out)
		}
		env = append(env, variable+"="+password(user))
	}
	if out, err := start(); err != nil {
		t.Fatalf("start.sh: %v\n%s", err, out)
	}
	return file
}

func startReplica(t *testing.T, nodes *redisnode.Finder) *replica.Replica {
	t.Helper()
	replica, err := replica.New(replica.Config{Redis: nodes, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		replica.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		replica.Close()
	})
	return replica
}

// denied reports whether the ACL refused a command, or a command within a script.
func denied(err error) bool {
	if err == nil {
		return false
	}
	return redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "NOAUTH") ||
		strings.Contains(err.Error(), "The user executing the script can't") || // Redis 7.0
		strings.Contains(err.Error(), "ACL failure in script")
}

func fields(command string) []any {
	var args []any
	for _, f := range strings.Fields(command) {
		args = append(args, f)
	}
	return args
}
