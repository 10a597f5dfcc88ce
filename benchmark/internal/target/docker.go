package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"heavy-read-api/internal/redisnode"
)

// docker is the stack in Docker Compose.
type docker struct {
	root string // folder of docker-compose.yaml
}

// container is an entry of `docker compose ps --format json`.
type container struct {
	ID      string
	Name    string
	Service string
	State   string
	Health  string
}

func (d *docker) Name() string { return InDocker }

// compose runs a Compose command on the stack that was started last.
func (d *docker) compose(ctx context.Context, args ...string) (string, error) {
	return run(ctx, d.root, append([]string{"sh", "local/stack.sh", "compose"}, args...)...)
}

// containers returns the running containers of the given services, or of all services.
func (d *docker) containers(ctx context.Context, services ...string) ([]container, error) {
	out, err := d.compose(ctx, append([]string{"ps", "--format", "json"}, services...)...)
	if err != nil {
		return nil, err
	}
	return parseContainers(out)
}

// parseContainers parses the output of Compose: one object per line, or a single array before version 2.21.
func parseContainers(out string) ([]container, error) {
	var all []container
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read the list of containers: %w", err)
		}
		if raw[0] != '[' {
			raw = append(append([]byte{'['}, raw...), ']')
		}
		var some []container
		if err := json.Unmarshal(raw, &some); err != nil {
			return nil, fmt.Errorf("read the list of containers: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// index returns the number of the container within its service, which is the end of its name.
func (c container) index() (int, error) {
	n, err := strconv.Atoi(c.Name[strings.LastIndexAny(c.Name, "-_")+1:])
	if err != nil {
		return 0, fmt.Errorf("container %s has no number at the end of its name", c.Name)
	}
	return n, nil
}

func (d *docker) Readers(ctx context.Context) ([]Reader, error) {
	containers, err := d.containers(ctx, "reader")
	if err != nil {
		return nil, err
	}
	var readers []Reader
	for _, c := range containers {
		n, err := c.index()
		if err != nil {
			return nil, err
		}
		addr, err := d.compose(ctx, "port", "--index", strconv.Itoa(n), "reader", "80")
		if err != nil {
			return nil, err
		}
		readers = append(readers, Reader{Name: c.Name, Addr: reachable(addr)})
	}
	if len(readers) == 0 {
		return nil, ErrNotRunning
	}
	return readers, nil
}

// reachable replaces the unspecified address with the loopback address.
func reachable(addr string) string {
	lines := strings.Split(addr, "\n") // one for IPv4, one for IPv6, or both
	addr = lines[max(0, slices.IndexFunc(lines, func(line string) bool { return strings.Count(line, ":") == 1 }))]
	colon := strings.LastIndexByte(addr, ':')
	if colon < 0 {
		return addr
	}
	name, port := strings.Trim(addr[:colon], "[]"), addr[colon+1:] // Compose prints IPv6 addresses without brackets
	switch name {
	case "0.0.0.0":
		name = host
	case "::":
		name = "::1"
	}
	return net.JoinHostPort(name, port)
}

// locate replaces the addresses that depend on BIND_ADDRESS with those that Compose has published.
func (d *docker) locate(ctx context.Context, a Addresses) (Addresses, error) {
	for _, s := range []struct {
		to            *string
		service, port string
	}{{&a.Writer, "writer", "8080"}, {&a.Gateway, "apisix", "9080"}} {
		addr, err := d.compose(ctx, "port", s.service, s.port)
		if err != nil || addr == "" {
			return a, errors.Join(ErrNotRunning, err)
		}
		*s.to = reachable(addr)
	}
	return a, nil
}

func (d *docker) Redis(ctx context.Context) (RedisServer, error) {
	addr, err := d.compose(ctx, "port", Redis, "6379")
	if err == nil && (addr == "" || strings.HasSuffix(addr, ":0")) {
		err = errors.New("the port of Redis is not published")
	}
	if err != nil {
		return RedisServer{}, err
	}
	// The admin password is in the container's environment. printenv fails when Redis has none.
	password, err := d.compose(ctx, "exec", "-T", Redis, "printenv", "REDIS_ADMIN_PASSWORD")
	if err != nil {
		password = ""
	}
	return RedisServer{Addr: reachable(addr), Password: password}, ctx.Err()
}

func (d *docker) Scale(ctx context.Context, n int) error {
	return stackScript(ctx, d.root, "scale", strconv.Itoa(n))
}

// Processes returns nothing: containers are children of the Docker engine, which may also run unrelated ones.
func (d *docker) Processes(context.Context) ([]int, error) { return nil, nil }

func (d *docker) Failover(ctx context.Context) error { return stackScript(ctx, d.root, "failover") }

// redisServer matches the services that are Redis servers.
var redisServer = regexp.MustCompile(`^redis(-[0-9]+)?$`)

func (d *docker) Primary(ctx context.Context) (string, error) {
	all, err := d.containers(ctx)
	if err != nil {
		return "", err
	}
	var servers []container
	sentinels := 0
	for _, c := range all {
		isSentinel := strings.HasPrefix(c.Service, "sentinel-")
		if isSentinel {
			sentinels++
		} else if redisServer.MatchString(c.Service) {
			servers = append(servers, c)
		} else {
			continue
		}
		if c.Health != "healthy" {
			err = errors.Join(err, fmt.Errorf("%s is %s", c.Name, c.Health))
		}
	}
	if sentinels == 0 {
		return "", ErrNoFailover
	}
	if err != nil {
		return "", err
	}
	primary := ""
	for _, c := range servers {
		info, err := d.compose(ctx, "exec", "-T", c.Service, "redis-cli", "info", "replication")
		r := redisnode.ParseReplication(info)
		switch {
		case err != nil:
			return "", err
		case r.Role != redisnode.Primary:
		case primary != "":
			return "", fmt.Errorf("%s and %s are both primaries", primary, c.Name)
		case r.Replicas != len(servers)-1:
			return "", fmt.Errorf("not every other server replicates %s", c.Name)
		default:
			primary = c.Name
		}
	}
	if primary == "" {
		return "", errors.New("no Redis server is a primary")
	}
	return primary, nil
}

func (d *docker) Kill(ctx context.Context, process string) (func(context.Context) error, error) {
	id := process
	if process == Redis {
		containers, err := d.containers(ctx, Redis)
		if err != nil {
			return nil, err
		}
		if len(containers) == 0 {
			return nil, errors.New("there is no Redis container")
		}
		id = containers[0].Name
	}
	if _, err := run(ctx, d.root, "docker", "kill", id); err != nil {
		return nil, err
	}
	// Docker does not restart a container that was killed through its API, whatever the restart policy is.
	return func(ctx context.Context) error {
		_, err := run(ctx, d.root, "docker", "start", id)
		return err
	}, nil
}
