//go:build compose

package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The checks of three Redis servers and three Sentinels (docker-compose.sentinel.yaml).

var servers = []string{"redis", "redis-2", "redis-3"}

// primary returns the server that a Sentinel names.
func primary(sentinel string) (string, error) {
	out, err := redisCLI(sentinel, "-p", "26379", "sentinel", "get-master-addr-by-name", "posts")
	if err != nil {
		return "", err
	}
	address, _, _ := strings.Cut(out, "\n")
	for suffix, service := range map[string]string{".11": "redis", ".12": "redis-2", ".13": "redis-3"} {
		if strings.HasSuffix(strings.TrimSpace(address), suffix) {
			return service, nil
		}
	}
	return "", fmt.Errorf("%s names %q as the primary", sentinel, out)
}

func mustPrimary(t testing.TB) string {
	t.Helper()
	service, err := primary("sentinel-1")
	if err != nil {
		t.Fatal(err)
	}
	return service
}

func others(service string) []string {
	return slices.DeleteFunc(slices.Clone(servers), func(s string) bool { return s == service })
}

// othersFollow is a condition for eventually: the two servers that are not the primary are its Redis replicas, connected.
func othersFollow() error {
	service, err := primary("sentinel-1")
	if err != nil {
		return err
	}
	for _, replica := range others(service) {
		role, err := redisCLI(replica, "role")
		if err != nil {
			return err
		}
		if l := lines(role); len(l) < 4 || l[0] != "slave" || l[3] != "connected" {
			return fmt.Errorf("%s is not a connected Redis replica: %q", replica, l)
		}
	}
	info, err := redisCLI(service, "info", "replication")
	if err == nil && !slices.Contains(lines(info), "connected_slaves:2") {
		err = fmt.Errorf("%s does not have two Redis replicas: %s", service, info)
	}
	return err
}

// replaced returns a condition for eventually: another server is the primary, and writes work.
func replaced(old string) func() error {
	return func() error {
		service, err := primary("sentinel-1")
		if err != nil {
			return err
		}
		if service == old {
			return fmt.Errorf("%s is still the primary", old)
		}
		_, err = put("check", "after the failover")
		return err
	}
}

// sameValues returns an error unless all servers have identical posts. It is a condition for eventually.
func sameValues() error {
	digests := make(map[string][]string)
	for _, service := range servers {
		sum, err := digest(service, "{posts:0}:p:*")
		if err != nil {
			return err
		}
		digests[sum] = append(digests[sum], service)
	}
	if len(digests) != 1 {
		return fmt.Errorf("the servers have different posts: %v", digests)
	}
	return nil
}

func checkSentinelStart(t *testing.T) {
	mustPut(t, "check", "from one Redis")
	run(t, "make", "start", "REDIS=sentinel")
	health := run(t, "make", "health")
	well := regexp.MustCompile(`(?m)^.*(primary of 2 Redis replicas|Redis replica of .*, link connected|OK 3 usable Sentinels).*$`)
	if got := len(well.FindAllString(health, -1)); got != 6 {
		t.Errorf("make health shows %d servers and Sentinels in order, want 6:\n%s", got, health)
	}
	for _, sentinel := range []string{"sentinel-1", "sentinel-2", "sentinel-3"} {
		if service, err := primary(sentinel); err != nil || service != "redis" {
			t.Errorf("the primary is %s, %v; want redis", service, err)
		}
	}
	now(t, inRotation(3))
	contains(t, mustGet(t, gateway+"/post?id=check"), "from one Redis")
	eventually(t, 20*time.Second, converged)
	eventually(t, 20*time.Second, sameValues)
}

func checkSentinelHardening(t *testing.T) {
	files := "docker-compose.yaml"
	if configured := os.Getenv("COMPOSE_FILE"); configured != "" {
		files = configured
	}
	t.Setenv("COMPOSE_FILE", files+":docker-compose.sentinel.yaml")
	checkHardening(t)
	checkPorts(t)
	expectNoDefaultPassword(t, "REDIS_ADMIN_PASSWORD", "REDIS_WRITER_PASSWORD", "REDIS_READER_PASSWORD", "REDIS_EXPORTER_PASSWORD",
		"REDIS_REPLICA_PASSWORD", "SENTINEL_PASSWORD", "SENTINEL_CLIENT_PASSWORD")
}

func checkSentinelUsers(t *testing.T) {
	refuses := func(service, port string, users []string, commands ...string) {
		t.Helper()
		for _, user := range users {
			out, err := tryWithInput(testContext, strings.Join(commands, "\n")+"\n", "docker", "compose", "exec", "-T",
				"-e", "REDISCLI_AUTH="+user+"-demo", service, "redis-cli", "--user", user, "-p", port)
			if err != nil {
				t.Fatal(err)
			}
			replies := slices.DeleteFunc(lines(out), func(line string) bool { return line == "" })
			if len(replies) != len(commands) {
				t.Errorf("%d replies to %d commands:\n%s", len(replies), len(commands), out)
			}
			for i, reply := range replies {
				if !strings.HasPrefix(reply, "NOPERM") {
					t.Errorf("%s does not refuse %q to %s: %s", service, commands[min(i, len(commands)-1)], user, reply)
				}
			}
		}
	}
	refuses("redis", "6379", []string{"replica", "sentinel"},
		"get {posts:0}:p:check", "set {posts:0}:p:check x", "publish posts_updates x", "subscribe posts_updates", `eval "return(1)" 0`,
		"replicaof no one", "config get masterauth", "config set dir /tmp", "acl list", "client list", "flushall", "shutdown")
	refuses("sentinel-1", "26379", []string{"client", "exporter"},
		"sentinel failover posts", "sentinel remove posts", "sentinel set posts quorum 1", "sentinel monitor x 127.0.0.1 1 1",
		"sentinel reset posts", "sentinel config get announce-ip", "publish __sentinel__:hello x", "acl list", "shutdown")
	contains(t, combined("docker", "compose", "exec", "-T", "-e", "REDISCLI_AUTH=", "sentinel-1", "redis-cli", "-p", "26379", "ping"), "NOAUTH")

	// Redis has refused only the commands above.
	for _, service := range servers {
		for _, user := range refusedUsers(t, service) {
			if user != "replica" && user != "sentinel" || service != "redis" {
				t.Errorf("%s refused a command to %s", service, user)
			}
		}
	}
	for _, service := range []string{"sentinel-2", "sentinel-3"} {
		if users := refusedUsers(t, service, "-p", "26379"); len(users) != 0 {
			t.Errorf("%s refused commands to %v", service, users)
		}
	}
}

// refusedUsers returns the users in the log of refused commands.
func refusedUsers(t *testing.T, service string, options ...string) []string {
	t.Helper()
	out, err := redisCLI(service, append(options, "acl", "log", "100")...)
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	all := lines(out)
	for i, line := range all[:max(0, len(all)-1)] {
		if line == "username" {
			users = append(users, all[i+1])
		}
	}
	return users
}

func checkSentinelPrometheus(t *testing.T) {
	eventually(t, 60*time.Second, equals(map[string]string{
		"count(redis:up == 1)": "6", "redis:quorum": "1", "sum(redis:link_up)": "2", "sum(redis:primary)": "1",
	}))
	checkPrometheusRules(t)
}

func checkSentinelKilled(t *testing.T) {
	underReads(t, func() {
		underWrites(t, 10*time.Second, func() {
			old := mustPrimary(t)
			name := containerName(old, 1)
			run(t, "docker", "kill", "--signal", "KILL", name)
			t.Cleanup(func() { combined("docker", "start", name) })
			eventually(t, 15*time.Second, replaced(old))
			// The alerts say what happened, and not that Redis is down.
			eventually(t, 20*time.Second, firing("RedisFailover"))
			if firing("RedisDown")() == nil {
				t.Error("RedisDown fires")
			}
			run(t, "docker", "start", name)
			eventually(t, 40*time.Second, othersFollow)
		})
	})
	eventually(t, 20*time.Second, sameValues)
}

func checkSentinelPaused(t *testing.T) {
	underReads(t, func() {
		underWrites(t, 12*time.Second, func() {
			old := mustPrimary(t)
			name := containerName(old, 1)
			run(t, "docker", "pause", name)
			t.Cleanup(func() { combined("docker", "unpause", name) })
			eventually(t, 20*time.Second, replaced(old))
			run(t, "docker", "unpause", name)
			eventually(t, 40*time.Second, othersFollow)
		})
	})
	eventually(t, 20*time.Second, sameValues)
}

func checkSentinelPlanned(t *testing.T) {
	report := regexp.MustCompile(`Writes were out for [^;]*; none was lost`)
	underReads(t, func() {
		underWrites(t, 8*time.Second, func() {
			for range 2 {
				old := mustPrimary(t)
				out := run(t, "make", "failover")
				line := report.FindString(out)
				if line == "" {
					t.Errorf("make failover does not say that no write was lost:\n%s", out)
				}
				t.Log(line)
				eventually(t, 10*time.Second, func() error {
					if err := replaced(old)(); err != nil {
						return err
					}
					return othersFollow()
				})
			}
		})
	})
	eventually(t, 20*time.Second, sameValues)
}

func checkSentinelBenchmark(t *testing.T) {
	out := t.TempDir()
	run(t, "benchmark/run_benchmark.sh", "--only", "failover", "--posts", "1000", "--rate", "500", "--out", out) // fails when a promise is broken
	content, err := os.ReadFile(filepath.Join(out, "benchmark-report.partial.md"))
	if err != nil {
		t.Fatal(err)
	}
	report := string(content)
	rows := regexp.MustCompile(`(?m)^\| (kill -9|planned failover) .* to .* \| .*$`).FindAllString(report, -1)
	if len(rows) != 2 {
		t.Errorf("the report has %d failovers, want 2:\n%s", len(rows), report)
	}
	for _, line := range regexp.MustCompile(`no write for .* s, all readers in sync after [^,]*`).FindAllString(report, -1) {
		t.Log(line)
	}
	eventually(t, 20*time.Second, sameValues)
}

func checkSentinelDashboards(t *testing.T) { checkDashboards(t, "-optional", "") }

func checkSentinelStopKeepsPosts(t *testing.T) {
	before := mustPrimary(t)
	size := func() string {
		t.Helper()
		out, err := redisCLI(before, "dbsize")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	posts := size()
	run(t, "make", "stop")
	if left := labelled("container"); len(left) != 0 {
		t.Errorf("containers after make stop: %v", left)
	}
	run(t, "make", "start", "WRITE_REPLICAS=1", "REDIS_READ_FROM=replica") // without REDIS=sentinel
	if got := mustPrimary(t); got != before {
		t.Errorf("the primary is %s, want %s", got, before)
	}
	if got := size(); got != posts {
		t.Errorf("%s has %s keys, want %s", before, got, posts)
	}
	eventually(t, 20*time.Second, converged)
	now(t, sameValues)
}

func checkSentinelSingleIsRefused(t *testing.T) {
	replica := others(mustPrimary(t))[1]
	out := refused(t, "docker", "compose", "exec", "-T", "-e", "REDIS_ADDRESS=", "-e", "ACL_FILE=/run/redis/other", replica, "sh", "/etc/redis/start.sh")
	contains(t, out, "last ran as a Redis replica")
}
