package local

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"heavy-read-api/internal/stack/layout"
)

// overlay is the Compose file for several Redis servers.
const overlay = "docker-compose.sentinel.yaml"

// layoutFile is the file in the run folder with the layout of Redis that was started last in Docker.
const layoutFile = "docker-redis"

// compose runs Docker Compose, a plugin of docker or a program of its own, with the files of a layout of Redis.
type compose struct {
	command []string // docker compose, or docker-compose
	redis   string   // layout: single or sentinel
	env     []string
}

// newCompose picks the layout: COMPOSE_FILE with the overlay, else REDIS, else the layout that was started last.
// A stack that was started with Sentinels must not be started without them by accident: another server than the
// remaining one may have the newest posts.
func newCompose() *compose {
	c := &compose{command: []string{"docker", "compose"}, env: os.Environ()}
	files := os.Getenv("COMPOSE_FILE")
	if slices.Contains(filepath.SplitList(files), overlay) {
		c.redis = layout.WithSentinel
	} else {
		last, _ := os.ReadFile(filepath.Join(runDir(), layoutFile)) // none before the first start
		c.redis = cmp.Or(os.Getenv("REDIS"), strings.TrimSpace(string(last)), layout.Single)
		if c.redis == layout.WithSentinel {
			if files == "" {
				files = "docker-compose.yaml"
				const override = "docker-compose.override.yaml" // which Compose reads unless COMPOSE_FILE is set
				if _, err := os.Stat(override); err == nil {
					files += string(filepath.ListSeparator) + override
				}
			}
			// Replaced, not appended: Compose reads the first of two variables with the same name.
			c.env = slices.DeleteFunc(c.env, func(e string) bool { return strings.HasPrefix(e, "COMPOSE_FILE=") })
			c.env = append(c.env, "COMPOSE_FILE="+files+string(filepath.ListSeparator)+overlay)
		}
	}
	if exec.Command("docker", "compose", "version").Run() != nil {
		c.command = []string{"docker-compose"}
	}
	return c
}

// arguments returns the command with its arguments.
func (c *compose) arguments(args ...string) []string { return append(slices.Clone(c.command), args...) }

// cmd returns the command for the caller to run.
func (c *compose) cmd(args ...string) *exec.Cmd {
	args = c.arguments(args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = c.env
	return cmd
}

// exec replaces this process by Compose.
func (c *compose) exec(args ...string) error { return replaceBy(c.arguments(args...), c.env) }

// output runs Compose and returns what it prints.
func (c *compose) output(ctx context.Context, args ...string) (string, error) {
	return output(ctx, c.env, c.arguments(args...)...)
}

// output runs a command and returns its standard output. The error has the last line of its standard error.
func output(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = errors.New(lastLine(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// daemonWait bounds the check whether docker's daemon answers; one that hangs would block every command.
const daemonWait = 5 * time.Second

// leastMinor is the minor version of Compose 2 that has the features that the stack needs.
const leastMinor = 24

var versionPattern = regexp.MustCompile(`^v?(\d+)\.(\d+)`)

// missing returns why the stack cannot run in Docker, in a few words, or "" if it can.
func (c *compose) missing(ctx context.Context) string {
	if _, err := os.Stat("docker-compose.yaml"); err != nil {
		return "there is no docker-compose.yaml"
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return "docker is not installed"
	}
	asking, cancel := context.WithTimeout(ctx, daemonWait)
	defer cancel()
	version := exec.CommandContext(asking, "docker", "version")
	version.WaitDelay = time.Second // a plugin that survives the kill may hold the pipe
	said, err := version.CombinedOutput()
	if ctx.Err() == nil && asking.Err() != nil {
		return fmt.Sprintf("docker's daemon has not answered for %s", daemonWait)
	}
	if err != nil {
		return "docker's daemon does not answer (" + lastLine(string(said)) + ")"
	}
	release, err := c.output(ctx, "version", "--short")
	release = strings.TrimSpace(release)
	if err != nil || release == "" {
		return "docker has no Compose (the docker-compose-plugin)"
	}
	if m := versionPattern.FindStringSubmatch(release); m != nil {
		major, _ := strconv.Atoi(m[1])
		minor, _ := strconv.Atoi(m[2])
		if major < 2 || major == 2 && minor < leastMinor {
			return fmt.Sprintf("Docker Compose is version %s: 2.%d or newer is needed", strings.TrimPrefix(release, "v"), leastMinor)
		}
	}
	return ""
}

// runs reports whether a container of the stack runs.
func (c *compose) runs(ctx context.Context) bool {
	ids, err := c.output(ctx, "ps", "--quiet")
	return err == nil && strings.TrimSpace(ids) != ""
}

// container is the part of the output of docker inspect that the commands use.
type container struct {
	Name   string
	Config struct{ Labels map[string]string }
	State  struct {
		Status   string
		Pid      int
		ExitCode int
		Health   *struct {
			Status string
			Log    []struct{ Output string }
		}
	}
	NetworkSettings struct {
		Ports    map[string][]binding // by port of the container, such as 80/tcp
		Networks map[string]struct{ IPAddress string }
	}
}

// binding is where a port of a container is published on this machine.
type binding struct{ HostIP, HostPort string }

// containers returns the containers of services, or of all, also those that are stopped. They are ordered by
// name and number.
func (c *compose) containers(ctx context.Context, services ...string) ([]container, error) {
	ids, err := c.output(ctx, append([]string{"ps", "--all", "--quiet"}, services...)...)
	if err != nil || strings.TrimSpace(ids) == "" {
		return nil, err
	}
	text, err := output(ctx, c.env, append([]string{"docker", "inspect"}, strings.Fields(ids)...)...)
	if err != nil {
		return nil, err
	}
	var all []container
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("read what docker inspect prints: %w", err)
	}
	slices.SortFunc(all, func(a, b container) int {
		return cmp.Or(cmp.Compare(len(a.name()), len(b.name())), cmp.Compare(a.name(), b.name()))
	})
	slices.SortStableFunc(all, func(a, b container) int { return cmp.Compare(a.service(), b.service()) })
	return all, nil
}

func (c container) name() string { return strings.TrimPrefix(c.Name, "/") }

func (c container) service() string { return c.Config.Labels["com.docker.compose.service"] }

// address returns where a client on this machine reaches a port of the container, "" when it is not published. A
// wildcard address becomes the loopback address.
func (c container) address(port int) string {
	bindings := slices.Clone(c.NetworkSettings.Ports[fmt.Sprintf("%d/tcp", port)])
	slices.SortStableFunc(bindings, func(a, b binding) int { // IPv4 first
		return cmp.Compare(strings.Count(a.HostIP, ":"), strings.Count(b.HostIP, ":"))
	})
	if len(bindings) == 0 {
		return ""
	}
	host := bindings[0].HostIP
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, bindings[0].HostPort)
}
