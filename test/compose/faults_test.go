//go:build compose

package compose

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The checks of faults with a single Redis.

func checkReaderKilled(t *testing.T) {
	name := containerName("reader", 2)
	underReads(t, func() {
		run(t, "docker", "kill", name)
		eventually(t, 20*time.Second, inRotation(2))
		run(t, "docker", "start", name)
		eventually(t, 30*time.Second, inRotation(3))
	})
	eventually(t, 20*time.Second, converged)
}

func checkReaderRestarts(t *testing.T) {
	if !ownEngine {
		t.Skip("the process belongs to another engine")
	}
	name := containerName("reader", 1)
	before := mustInspect(t, name)
	if err := syscall.Kill(before.State.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		all, err := inspect(name)
		if err != nil {
			return err
		}
		if got, want := all[0].RestartCount, before.RestartCount+1; got != want {
			return fmt.Errorf("the reader was restarted %d times, want %d", got, want)
		}
		return healthy(name)()
	})
	eventually(t, 30*time.Second, inRotation(3))
	eventually(t, 20*time.Second, converged)
}

// disconnect cuts a container off from a network of the stack and returns what connects it again.
func disconnect(t *testing.T, network, service string, instance int) (connect func()) {
	t.Helper()
	network, name := project+"_"+network, containerName(service, instance)
	run(t, "docker", "network", "disconnect", network, name)
	connected := false
	command := []string{"docker", "network", "connect", "--alias", service, network, name}
	t.Cleanup(func() {
		if !connected {
			combined(command...) // so that a check that fails here does not break the next ones
		}
	})
	return func() {
		t.Helper()
		run(t, command...)
		connected = true
	}
}

func checkReaderDisconnected(t *testing.T) {
	underReads(t, func() {
		connect := disconnect(t, "default", "reader", 3)
		eventually(t, 20*time.Second, inRotation(2))
		mustPut(t, "check", "written meanwhile")
		connect()
		eventually(t, 30*time.Second, inRotation(3))
		eventually(t, 20*time.Second, converged)
		// Without Redis the reader serves from memory and reports that it is degraded.
		connect = disconnect(t, "data", "reader", 1)
		mustPut(t, "check", "written once more")
		eventually(t, 20*time.Second, degraded)
		now(t, inRotation(3))
		connect()
	})
	eventually(t, 30*time.Second, converged)
}

// degraded is a condition for eventually: the health check of a reader says so.
func degraded() error {
	all, err := containers("reader")
	if err != nil {
		return err
	}
	for _, c := range all {
		for _, entry := range c.State.Health.Log {
			if strings.Contains(entry.Output, "degraded") {
				return nil
			}
		}
	}
	return errors.New("no health check of a reader says degraded")
}

func checkRedisDisconnected(t *testing.T) {
	underReads(t, func() {
		connect := disconnect(t, "data", "redis", 1)
		eventually(t, 10*time.Second, refusesWrites)
		now(t, inRotation(3))
		expectStatus(t, http.StatusServiceUnavailable, http.MethodGet, writerOperations+"/ready")
		connect()
	})
	eventually(t, 30*time.Second, converged)
}

func checkRedisRestarted(t *testing.T) {
	const posts = 2000
	var body strings.Builder
	for n := range posts {
		fmt.Fprintf(&body, "{\"id\":\"kept-%d\",\"title\":\"t\",\"content\":\"c %d\"}\n", n+1, n+1)
	}
	a, err := send(http.MethodPost, writer+"/import", http.Header{"Content-Type": {"application/x-ndjson"}}, body.String())
	if err != nil || a.status >= 400 {
		t.Fatalf("the import returned %d, %v: %.300s", a.status, err, a.body)
	}
	kept := func() string { // number of keys and hash of the posts
		t.Helper()
		sum, err := digest("redis", "{posts:0}:p:kept-*")
		if err != nil {
			t.Fatal(err)
		}
		size, err := redisCLI("redis", "dbsize")
		if err != nil {
			t.Fatal(err)
		}
		return sum + " " + size
	}
	before := kept()
	name := containerName("redis", 1)
	underReads(t, func() {
		run(t, "docker", "kill", "--signal", "KILL", name)
		t.Cleanup(func() { combined("docker", "start", name) })
		eventually(t, 10*time.Second, refusesWrites)
		run(t, "docker", "start", name)
		eventually(t, 60*time.Second, healthy(name))
		eventually(t, 20*time.Second, converged)
	})
	if after := kept(); after != before {
		t.Errorf("the posts after a kill are %s, before %s", after, before)
	}
	run(t, "docker", "compose", "--progress", "quiet", "restart", "redis")
	eventually(t, 60*time.Second, healthy(name))
	if after := kept(); after != before {
		t.Errorf("the posts after a restart are %s, before %s", after, before)
	}
	eventually(t, 30*time.Second, converged)
	mustGet(t, fmt.Sprintf("%s/post-redis?id=kept-%d", gateway, posts))
}

func checkReadersWithoutRedis(t *testing.T) {
	mustPut(t, "kept", "kept in the snapshot file")
	eventually(t, 20*time.Second, converged)
	t.Cleanup(func() { combined("docker", "start", containerName("redis", 1)) })
	run(t, "docker", "compose", "stop", "reader", "reader-direct") // SIGTERM: one of them saves the file
	run(t, "docker", "compose", "stop", "redis")
	for _, name := range []string{containerName("reader", 1), containerName("reader", 2), containerName("reader", 3), containerName("reader-direct", 1)} {
		run(t, "docker", "start", name) // Compose would start Redis too
	}
	eventually(t, 60*time.Second, inRotation(3))
	contains(t, mustGet(t, gateway+"/post?id=kept"), "kept in the snapshot file")
	run(t, "docker", "start", containerName("redis", 1))
	eventually(t, 60*time.Second, converged)
}
