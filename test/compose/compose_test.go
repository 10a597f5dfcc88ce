//go:build compose

package compose

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// stack is the set of services that runs during a check.
type stack int

const (
	single    stack = iota // one Redis
	sentinels              // three Redis servers and three Sentinels
	nothing
)

type check struct {
	name  string
	says  string // claim that it checks
	needs stack
	run   func(t *testing.T)
}

// checks run in this order. The posts that they write and the services that they start stay for the next ones.
var checks = []check{
	{"check_start", "make start: everything becomes healthy, and three readers are in rotation", single, func(*testing.T) {}},
	{"check_readme", "README: the quick start's curl lines answer as it says", single, checkReadme},
	{"check_make_targets", "make test-write, test-read, stats and logs work", single, checkMakeTargets},
	{"check_docker_compose_spelling", "docker-compose, the stand-alone program, works as well as the plugin", single, checkDockerComposeSpelling},
	{"check_round_robin", "the gateway spreads reads evenly over three readers", single, checkRoundRobin},
	{"check_consistency", "through the gateway, the cookie of a write and X-Min-Version: latest include that write", single, checkConsistency},
	{"check_gateway_limits", "the gateway passes only GET and HEAD of the read routes", single, checkGatewayLimits},
	{"check_hardening", "no container runs as root, can write to its root, has a capability or can get one", single, checkHardening},
	{"check_ports", "published ports are on 127.0.0.1; BIND_ADDRESS opens only the gateway and the writer", single, checkPorts},
	{"check_passwords", "no command line has a password; every default password can be changed", single, checkPasswords},
	{"check_redis_users", "a reader's password cannot write to Redis, and nothing can be done without a password", single, checkRedisUsers},
	{"check_redis_reach", "the gateway and Prometheus cannot reach Redis", single, checkRedisReach},
	{"check_redis_calls_nobody", "Redis has no route to the outside", single, checkRedisCallsNobody},
	{"check_memory_limit", "each program adopts its container's memory limit", single, checkMemoryLimit},
	{"check_prometheus_targets", "Prometheus scrapes every service, and each reader on its own", single, checkPrometheusTargets},
	{"check_prometheus_rules", "Prometheus loads its rules without an error; no alert fires", single, checkPrometheusRules},
	{"check_auditor", "the auditor finds the readers identical with each other and with Redis; its alerts are loaded; the gateway hides /audit", single, checkAuditor},
	{"check_page", "the dashboard names every reader, shows a write arrive in each, and has no button that breaks something", single, checkPage},
	{"check_dashboards", "every query of every dashboard and rule has data", single, func(t *testing.T) { checkDashboards(t) }},
	{"check_load", "make load puts reads on the stack, and ends on Ctrl-C with a summary", single, checkLoad},
	{"check_demo", "make demo: every outcome is good, no read fails, the digests are identical, and the stack is as before", single, checkDemo},
	{"check_reader_killed", "docker kill of a reader fails no read, and the reader comes back", single, checkReaderKilled},
	{"check_reader_restarts", "a reader that ends by itself is restarted", single, checkReaderRestarts},
	{"check_reader_disconnected", "a reader cut off from the gateway, or from Redis, fails no read and converges", single, checkReaderDisconnected},
	{"check_redis_disconnected", "Redis cut off from the stack: reads go on, writes are refused, and everything converges", single, checkRedisDisconnected},
	{"check_redis_restarted", "Redis killed and restarted keeps every post; reads go on meanwhile", single, checkRedisRestarted},
	{"check_readers_without_redis", "all readers restarted while Redis is down serve the posts of the snapshot file", single, checkReadersWithoutRedis},
	{"check_access_counters", "Redis refused nothing to the programs, except that a reader loads its script after the restart", single, checkAccessCounters},
	{"check_scale", "make scale N=5 adds two readers to the rotation, N=3 removes two, no read fails, and no reader counts as missing", single, checkScale},
	{"check_stop_keeps_posts", "make stop keeps the posts, and they are there after make start", single, checkStopKeepsPosts},

	{"check_sentinel_start", "make start REDIS=sentinel: the running stack gets three servers and three Sentinels, and keeps its posts", sentinels, func(*testing.T) {}},
	{"check_sentinel_hardening", "servers and Sentinels are as hardened as the rest, and publish no port", sentinels, checkSentinelHardening},
	{"check_sentinel_users", "Redis replicas, Sentinels and their clients have the rights that they need, and no others", sentinels, checkSentinelUsers},
	{"check_sentinel_prometheus", "Prometheus scrapes every server and every Sentinel, and no alert fires", sentinels, checkSentinelPrometheus},
	{"check_sentinel_killed", "primary killed: another one takes over, no read fails, no acknowledged post is lost, and the old one follows", sentinels, checkSentinelKilled},
	{"check_sentinel_paused", "primary frozen: another one takes over, no read fails, no acknowledged post is lost, and the old one follows", sentinels, checkSentinelPaused},
	{"check_sentinel_planned", "make failover, twice: writes are out for seconds, no read fails, no acknowledged post is lost", sentinels, checkSentinelPlanned},
	{"check_sentinel_benchmark", "the benchmark kills and moves the primary: no read fails, and the planned failover loses nothing", sentinels, checkSentinelBenchmark},
	{"check_sentinel_dashboards", "every query of every dashboard and rule has data with three servers, too", sentinels, checkSentinelDashboards},
	{"check_sentinel_stop_keeps_posts", "make stop, make start: three servers again, the same primary, every post; with WRITE_REPLICAS and REDIS_READ_FROM=replica", sentinels, checkSentinelStopKeepsPosts},
	{"check_sentinel_single_is_refused", "a single Redis does not start from the data of a Redis replica", sentinels, checkSentinelSingleIsRefused},

	{"check_clean", "make clean leaves no container, network, volume or image of the stack", single, checkClean},
	{"check_fallback", "without an engine make start says so and runs the local stack; RUNTIME=docker makes it an error", nothing, checkFallback},
	{"check_fallback_images", "without images make start says so and runs the local stack", nothing, checkFallbackImages},
}

// results of the checks that ran.
var held, skipped, failed []string

func TestCompose(t *testing.T) {
	var env environment
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Log(c.says)
			began := time.Now()
			defer func() {
				seconds := time.Since(began).Seconds()
				switch {
				case t.Failed():
					failed = append(failed, fmt.Sprintf("%s: %s (%.0f s)", c.name, c.says, seconds))
					t.Logf("FAIL (%.0f s)", seconds)
				case t.Skipped():
					skipped = append(skipped, c.name)
				default:
					held = append(held, c.name)
					t.Logf("ok (%.0f s)", seconds)
				}
			}()
			env.provide(t, c.needs)
			c.run(t)
		})
	}
}

// environment records what the previous checks have started.
type environment struct {
	started, sentinels bool
}

// provide starts what a check needs, with the checks of the start itself. A start that failed is not repeated for the
// next check.
func (e *environment) provide(t *testing.T, needs stack) {
	t.Helper()
	if needs == nothing {
		if e.started {
			e.started, e.sentinels = false, false
			run(t, "make", "clean")
		}
		return
	}
	if !e.started {
		e.started = true
		checkStart(t)
	}
	if needs == sentinels && !e.sentinels {
		e.sentinels = true
		checkSentinelStart(t)
	}
}

// summarize prints the result of all checks. It is an error when none ran.
func summarize() error {
	for _, name := range skipped {
		fmt.Println("not run:", name)
	}
	for _, line := range failed {
		fmt.Println("FAIL", line)
	}
	fmt.Printf("%d checks held, %d did not\n", len(held), len(failed))
	if len(held)+len(failed) == 0 {
		return errors.New("no check ran; they are called " + strings.Join(names(), ", "))
	}
	return nil
}

func names() []string {
	var all []string
	for _, c := range checks {
		all = append(all, c.name)
	}
	return all
}
