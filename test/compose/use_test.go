//go:build compose

package compose

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"heavy-read-api/test/compose/internal/engine"
	"heavy-read-api/test/compose/internal/standin"
)

// The checks of everyday use: make's commands, the README, the gateway.

func checkStart(t *testing.T) {
	run(t, "make", "start")
	version, err := put("check", "first")
	if err != nil {
		t.Fatal(err)
	}
	// A write reaches each reader in its own time, and only then may the post be read through the gateway.
	eventually(t, 10*time.Second, func() error { return onEveryReader(version, "first") })
	now(t, inRotation(3))
	run(t, "make", "health")
}

var statusLine = regexp.MustCompile(`(?m)HTTP/1\.1 (\d+)`)

func checkReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := curlLines(string(readme))
	// curl must bypass the unreachable proxy that the test sets in the environment.
	out := run(t, "env", "no_proxy=*", "bash", "-euo", "pipefail", "-c", script)
	var statuses []string
	for _, match := range statusLine.FindAllStringSubmatch(out, -1) {
		statuses = append(statuses, match[1])
	}
	if got, want := strings.Join(statuses, " "), "201 200 200 304 200 204 404"; got != want {
		t.Errorf("the status codes are %s, want %s; the commands:\n%s", got, want, script)
	}
	contains(t, out, `"created":3`)
}

// curlLines returns the shell blocks of the README's quick start from the first curl on, without make commands.
func curlLines(readme string) string {
	var script strings.Builder
	var quickStart, block, begun bool
	for line := range strings.Lines(readme) {
		switch {
		case strings.HasPrefix(line, "## "):
			quickStart = strings.Contains(line, "Quick start")
		case strings.HasPrefix(line, "```"):
			block = strings.HasPrefix(line, "```sh")
		case quickStart && block && !strings.HasPrefix(line, "make "):
			if begun = begun || strings.Contains(line, "curl"); begun {
				script.WriteString(line)
			}
		}
	}
	return script.String()
}

func checkMakeTargets(t *testing.T) {
	contains(t, run(t, "make", "test-write", "POST_ID=made"), "HTTP/1.1 201")
	contains(t, run(t, "make", "test-read", "POST_ID=made"), "Written by make test-write")
	stats := run(t, "make", "stats")
	// Four readers that are ready, with a version: the last column but one.
	ready := 0
	for _, line := range lines(stats) {
		fields := strings.Fields(line)
		if len(fields) < 3 || !regexp.MustCompile(`-reader-(direct-)?\d`).MatchString(fields[0]) || fields[1] != "ready" {
			continue
		}
		if version, err := strconv.ParseFloat(fields[len(fields)-2], 64); err == nil && version > 0 {
			ready++
		}
	}
	if ready != 4 {
		t.Errorf("make stats shows %d ready readers, want 4:\n%s", ready, stats)
	}
	for target, containers := range map[string][]string{
		"logs": {"writer-1", "reader-1", "redis-1", "prometheus-1"}, "logs-writer": {"writer-1"},
		"logs-reader": {"reader-1", "reader-2", "reader-3", "reader-direct-1"}, "logs-redis": {"redis-1"},
	} {
		out := combined("timeout", "--kill-after", "2", "3", "make", target) // which would follow the logs for ever
		for _, name := range containers {
			if !regexp.MustCompile("(?m)^" + name + " +[|]").MatchString(out) {
				t.Errorf("make %s has no line of %s:\n%.2000s", target, name, out)
			}
		}
	}
}

func checkDockerComposeSpelling(t *testing.T) {
	work := t.TempDir()
	if err := os.Symlink(engine.Plugin(), filepath.Join(work, "docker-compose")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", work+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_CONFIG", filepath.Join(work, "config"))
	if _, err := try("docker", "compose", "version"); err == nil {
		t.Skip("this machine has the plugin in a folder for all users")
	}
	run(t, "make", "health")
	if pong := run(t, "docker-compose", "exec", "-T", "redis", "redis-cli", "ping"); strings.TrimSpace(pong) != "PONG" {
		t.Errorf("PING returned %q", pong)
	}
}

func checkRoundRobin(t *testing.T) {
	served, err := rotation(300)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("reads by reader:", served)
	for reader, n := range served {
		if n < 90 || n > 110 {
			t.Errorf("%s served %d of 300 reads, want 90 to 110", reader, n)
		}
	}
	if len(served) != 3 {
		t.Errorf("%d readers served reads, want 3", len(served))
	}
}

func checkGatewayLimits(t *testing.T) {
	for _, path := range []string{"/post-redis?id=check", "/post-marshal?id=check", "/post?id=check", "/health"} {
		mustGet(t, gateway+path)
	}
	header := expectStatus(t, http.StatusOK, http.MethodHead, gateway+"/post?id=check")
	for _, name := range []string{"ETag", "X-Request-Id"} {
		if header.Get(name) == "" {
			t.Errorf("HEAD /post has no %s: %v", name, header)
		}
	}
	for _, path := range []string{"/metrics", "/status", "/ready", "/create"} {
		expectStatus(t, http.StatusNotFound, http.MethodGet, gateway+path+"?id=check")
	}
	expectStatus(t, http.StatusNotFound, http.MethodPost, gateway+"/post?id=check")
}

func checkScale(t *testing.T) {
	underReads(t, func() {
		run(t, "make", "scale", "N=5")
		now(t, inRotation(5))
		run(t, "make", "scale", "N=3")
		eventually(t, 15*time.Second, inRotation(3))
	})
	eventually(t, 20*time.Second, converged)
	eventually(t, 20*time.Second, equals(map[string]string{`count(up{job="reader"})`: "3"}))
	awaitEvaluation(t)
	alerts, err := query(`ALERTS{alertname="ReaderGone"}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(alerts) != 0 {
		t.Errorf("ReaderGone counts readers that were stopped: %v", alerts)
	}
}

func checkStopKeepsPosts(t *testing.T) {
	mustPut(t, "check", "kept over a stop")
	mustPut(t, "kept-over-stop", "as well")
	run(t, "make", "stop")
	if left := labelled("container"); len(left) != 0 {
		t.Errorf("containers after make stop: %v", left)
	}
	run(t, "make", "start")
	contains(t, mustGet(t, gateway+"/post?id=check"), "kept over a stop")
	mustGet(t, gateway+"/post?id=kept-over-stop")
	now(t, inRotation(3))
}

func checkClean(t *testing.T) {
	run(t, "make", "clean")
	for _, kind := range []string{"container", "network", "volume", "image"} {
		if left := labelled(kind); len(left) != 0 {
			t.Errorf("make clean left %d of kind %s: %v", len(left), kind, left)
		}
	}
	if ownEngine {
		if left := run(t, "docker", "images", "--quiet", "heavy-read-api-*"); left != "" {
			t.Errorf("make clean left images: %s", left)
		}
	}
}

// unset removes a variable from the environment for the rest of the test.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // restores it in the end
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func checkFallback(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nowhere")
	contains(t, refused(t, "make", "start"), "RUNTIME=docker, but docker's daemon does not answer")
	unset(t, "COMPOSE_FILE")
	unset(t, "RUNTIME")
	t.Cleanup(func() { combined("make", "clean") })
	out := run(t, "make", "start")
	contains(t, out, "Runtime: local (docker's daemon does not answer")
	run(t, "make", "health")
	mustPut(t, "check", "local")
	run(t, "make", "stop")
}

func checkFallbackImages(t *testing.T) {
	if !ownEngine {
		t.Skip("the images of this machine are left alone")
	}
	run(t, "docker", "image", "rm", standin.RedisImage)
	contains(t, refused(t, "make", "start"), "RUNTIME=docker, but the images cannot be")
	unset(t, "RUNTIME")
	t.Cleanup(func() { combined("make", "clean") })
	contains(t, run(t, "make", "start"), "The images cannot be")
	run(t, "make", "health") // of the local stack
}
