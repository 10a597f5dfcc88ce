//go:build compose

package compose

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The checks of isolation: privileges, ports, passwords, rights in Redis, networks.

func checkHardening(t *testing.T) {
	all := mustContainers(t)
	for _, c := range all {
		expect := func(what string, got, want any) {
			t.Helper()
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s of %s: %v, want %v", what, c.Name, got, want)
			}
		}
		expect("read-only root", c.HostConfig.ReadonlyRootfs, true)
		expect("dropped capabilities", c.HostConfig.CapDrop, "[ALL]")
		expect("security options", c.HostConfig.SecurityOpt, "[no-new-privileges:true]")
		expect("memory limit set", c.HostConfig.Memory > 0, true)
		expect("health", c.State.Health.Status, "healthy")
		expect("size of a log file", c.HostConfig.LogConfig.Config["max-size"], "10m")
		expect("restart policy", c.HostConfig.RestartPolicy.Name, "unless-stopped")
		if ownEngine { // the processes of an engine in a virtual machine are not visible here
			expect("limit of processes set", c.HostConfig.PidsLimit != nil && *c.HostConfig.PidsLimit > 0, true)
			checkProcess(t, c)
		}
	}
	t.Log(len(all), "containers")
}

var (
	userLine       = regexp.MustCompile(`(?m)^Uid:\s+(\d+)\s+(\d+)\s`)
	capabilityLine = regexp.MustCompile(`(?m)^Cap(?:Prm|Eff|Bnd|Inh|Amb):\s+(\w+)$`)
	privilegeLine  = regexp.MustCompile(`(?m)^NoNewPrivs:\s+1$`)
)

// checkProcess reads what the kernel reports about the main process of a container.
func checkProcess(t *testing.T, c container) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	status := string(content)
	if user := userLine.FindStringSubmatch(status); user == nil || user[1] == "0" || user[2] == "0" {
		t.Errorf("%s runs as root: %v", c.Name, user)
	}
	capabilities := capabilityLine.FindAllStringSubmatch(status, -1)
	for _, match := range capabilities {
		if strings.Trim(match[1], "0") != "" {
			t.Errorf("%s has capabilities: %s", c.Name, match[0])
		}
	}
	if len(capabilities) != 5 {
		t.Errorf("%s has %d sets of capabilities, want 5", c.Name, len(capabilities))
	}
	if !privilegeLine.MatchString(status) {
		t.Errorf("%s can gain privileges", c.Name)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	roots := 0
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[4] == "/" { // mount point; its options follow
			roots++
			if !strings.HasPrefix(fields[5]+",", "ro,") {
				t.Errorf("the root of %s is writable: %s", c.Name, line)
			}
		}
	}
	if roots == 0 {
		t.Errorf("%s has no root mount", c.Name)
	}
}

func checkPorts(t *testing.T) {
	for _, c := range mustContainers(t) {
		for _, address := range c.published() {
			if !strings.HasPrefix(address, "127.0.0.1:") {
				t.Errorf("%s publishes %s", c.Name, address)
			}
		}
	}
	var config struct {
		Services map[string]struct {
			Ports []struct {
				HostIP string `json:"host_ip"`
				Target int
			}
		}
	}
	text := run(t, "env", "BIND_ADDRESS=0.0.0.0", "docker", "compose", "config", "--format", "json")
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	var open []string
	for name, service := range config.Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				open = append(open, fmt.Sprintf("%s:%d", name, port.Target))
			}
		}
	}
	if got, want := sorted(open), "apisix:9080 writer:8080"; got != want {
		t.Errorf("BIND_ADDRESS opens %s, want %s", got, want)
	}
	for _, path := range []string{"/metrics", "/ready", "/health"} {
		expectStatus(t, http.StatusNotFound, http.MethodGet, writer+path)
		expectStatus(t, http.StatusOK, http.MethodGet, writerOperations+path)
	}
}

func checkPasswords(t *testing.T) {
	expectNoDefaultPassword(t, "REDIS_ADMIN_PASSWORD", "REDIS_WRITER_PASSWORD", "REDIS_READER_PASSWORD", "REDIS_EXPORTER_PASSWORD")
}

// expectNoDefaultPassword fails the test when a command line has a password, or when a default password is left once
// these variables are set.
func expectNoDefaultPassword(t *testing.T, variables ...string) {
	t.Helper()
	for _, c := range mustContainers(t) {
		if commands := c.commandLines(); strings.Contains(commands, "-demo") {
			t.Errorf("a command line of %s has a password: %s", c.Name, commands)
		}
	}
	command := []string{"env"}
	for _, name := range variables {
		command = append(command, name+"=p")
	}
	config := run(t, append(command, "docker", "compose", "config")...)
	for line := range strings.Lines(config) {
		if strings.Contains(line, "-demo") {
			t.Errorf("a default password cannot be changed: %s", line)
		}
	}
	contains(t, config, "REDIS_PASSWORD: p")
}

func checkRedisUsers(t *testing.T) {
	const value = "{posts:0}:p:check"
	post := func() string {
		t.Helper()
		text := redisAs("reader", "reader-demo", "get", value)
		contains(t, text, `"content":`)
		return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	}
	before := post()
	denied := regexp.MustCompile(`NOPERM|can't run this command|ACL failure`)
	for _, command := range [][]string{
		{"set", value, "x"}, {"del", value}, {"publish", "posts_updates", "x"}, {"xadd", "{posts:0}:log", "1-1", "e", "x"},
		{"flushall"}, {"config", "set", "appendfsync", "no"}, {"eval", "return(redis.call('del',KEYS[1]))", "1", value},
		{"eval_ro", "return(1)", "0"}, {"script", "load", "return(1)"},
	} {
		for _, user := range []string{"reader", "exporter"} {
			if out := redisAs(user, user+"-demo", command...); !denied.MatchString(out) {
				t.Errorf("%s may %q: %s", user, command, out)
			}
		}
		if out := redisAs("", "", command...); !strings.Contains(out, "NOAUTH") {
			t.Errorf("a client without a password may %q: %s", command, out)
		}
	}
	contains(t, redisAs("", "", "get", value), "NOAUTH")
	contains(t, redisAs("writer", "reader-demo", "ping"), "WRONGPASS")
	if after := post(); after != before {
		t.Error("the post was changed")
	}
	if pong := run(t, "docker", "compose", "exec", "-T", "redis", "redis-cli", "ping"); strings.TrimSpace(pong) != "PONG" {
		t.Errorf("PING of the operator returned %q", pong)
	}
}

func checkRedisReach(t *testing.T) {
	address := mustInspect(t, containerName("redis", 1)).NetworkSettings.Networks[project+"_data"].IPAddress
	if address == "" {
		t.Fatal("Redis has no address in its network")
	}
	for _, command := range [][]string{
		{"apisix", "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/" + address + "/6379"},
		{"apisix", "getent", "ahostsv4", "redis"},
		{"prometheus", "wget", "-Y", "off", "-q", "-T", "2", "-O", "-", "http://" + address + ":6379"},
	} {
		if out, err := execIn(command[0], command[1:]...); err == nil {
			t.Errorf("%q reaches Redis: %s", command, out)
		}
	}
	// The command itself works: apisix can connect to the writer.
	run(t, "docker", "compose", "exec", "-T", "apisix", "bash", "-c", "exec 3<>/dev/tcp/writer/8080")
}

func checkRedisCallsNobody(t *testing.T) {
	for _, question := range []struct{ network, format, want string }{
		{"data", "{{.Internal}}", "true"},
		{"redis", `{{index .Options "com.docker.network.bridge.enable_ip_masquerade"}}`, "false"},
	} {
		got := strings.TrimSpace(run(t, "docker", "network", "inspect", project+"_"+question.network, "--format", question.format))
		if got != question.want {
			t.Errorf("%s of the network %s is %s, want %s", question.format, question.network, got, question.want)
		}
	}
	networks := mustInspect(t, containerName("redis", 1)).networks()
	if got, want := sorted(networks), project+"_data "+project+"_redis"; got != want {
		t.Errorf("Redis is in the networks %s, want %s", got, want)
	}
}

func checkMemoryLimit(t *testing.T) {
	for service, limit := range map[string]int64{"reader": 768 << 20, "writer": 512 << 20, "auditor": 256 << 20, "dashboard": 64 << 20} {
		contains(t, combined("docker", "logs", containerName(service, 1)), fmt.Sprintf(`msg="Go memory limit set" bytes=%d`, limit*9/10))
	}
}

func checkAccessCounters(t *testing.T) {
	// The restart of Redis has cleared its log of the refusals that earlier checks provoked.
	var entries []struct{ Username, Object string }
	text := run(t, "docker", "compose", "exec", "-T", "redis", "redis-cli", "--json", "acl", "log", "100")
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, e := range entries {
		if e.Username != "reader" || e.Object != "script|load" {
			t.Errorf("Redis refused %s to %s", e.Object, e.Username)
		}
	}
}
