//go:build compose

package compose

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// container is the part of the output of docker inspect that the checks use.
type container struct {
	ID           string `json:"Id"`
	Name         string // begins with a slash
	Path         string
	Args         []string
	RestartCount int
	State        struct {
		Pid    int
		Health struct {
			Status string
			Log    []struct{ Output string }
		}
	}
	Config struct {
		Cmd         []string
		Healthcheck struct{ Test []string }
	}
	HostConfig struct {
		ReadonlyRootfs bool
		CapDrop        []string
		SecurityOpt    []string
		Memory         int64
		PidsLimit      *int64
		LogConfig      struct{ Config map[string]string }
		RestartPolicy  struct{ Name string }
	}
	NetworkSettings struct {
		Ports    map[string][]struct{ HostIp, HostPort string }
		Networks map[string]struct{ IPAddress string }
	}
}

func (c container) published() []string {
	var all []string
	for _, bindings := range c.NetworkSettings.Ports {
		for _, b := range bindings {
			all = append(all, net.JoinHostPort(b.HostIp, b.HostPort))
		}
	}
	return all
}

func (c container) networks() []string {
	var all []string
	for name := range c.NetworkSettings.Networks {
		all = append(all, name)
	}
	return all
}

// commandLines is every command line of the container that docker inspect shows.
func (c container) commandLines() string {
	return fmt.Sprint(c.Path, c.Args, c.Config.Cmd, c.Config.Healthcheck.Test)
}

// containerName returns the name of a container of a service; instances count from 1.
func containerName(service string, instance int) string {
	return fmt.Sprintf("%s-%s-%d", project, service, instance)
}

func inspect(names ...string) ([]container, error) {
	text, err := try(append([]string{"docker", "inspect", "--type", "container"}, names...)...)
	if err != nil {
		return nil, err
	}
	var all []container
	return all, json.Unmarshal([]byte(text), &all)
}

// containers returns the running containers of these services, or of all services.
func containers(services ...string) ([]container, error) {
	ids, err := try(append([]string{"docker", "compose", "ps", "--quiet"}, services...)...)
	if err != nil {
		return nil, err
	}
	all := lines(ids)
	if len(all) == 0 {
		return nil, fmt.Errorf("no container of %v runs", services)
	}
	return inspect(all...)
}

func mustInspect(t testing.TB, name string) container {
	t.Helper()
	all, err := inspect(name)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func mustContainers(t testing.TB, services ...string) []container {
	t.Helper()
	all, err := containers(services...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// readers returns the addresses of all readers on this machine.
func readers() ([]string, error) {
	all, err := containers("reader", "reader-direct")
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, c := range all {
		addresses = append(addresses, c.published()...)
	}
	if len(addresses) != len(all) {
		return nil, fmt.Errorf("%d readers have %d addresses", len(all), len(addresses))
	}
	return addresses, nil
}

// healthy returns a condition for eventually: the container's health check succeeds.
func healthy(name string) func() error {
	return func() error {
		all, err := inspect(name)
		if err != nil {
			return err
		}
		if status := all[0].State.Health.Status; status != "healthy" {
			return fmt.Errorf("%s is %s", name, status)
		}
		return nil
	}
}

// execIn runs a command in the container of a service and returns its standard output.
func execIn(service string, args ...string) (string, error) {
	return try(append([]string{"docker", "compose", "exec", "-T", service}, args...)...)
}

// redisCLI runs a Redis command on a service as the operator, whose password the container has.
func redisCLI(service string, args ...string) (string, error) {
	return execIn(service, append([]string{"redis-cli"}, args...)...)
}

// redisAs runs a Redis command on the service redis as a user, or without one, and returns all that was printed: an
// error of Redis is part of the output.
func redisAs(user, password string, args ...string) string {
	command := []string{"docker", "compose", "exec", "-T", "-e", "REDISCLI_AUTH=" + password, "redis", "redis-cli"}
	if user != "" {
		command = append(command, "--user", user)
	}
	return combined(append(command, args...)...)
}

// labelled returns the ids of the containers, networks, volumes or images that Compose made for the stack.
func labelled(kind string) []string {
	command := []string{"docker", kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project=" + project}
	if kind == "container" || kind == "image" {
		command = append(command, "--all")
	}
	out, _ := try(command...)
	return lines(out)
}

// digest returns a hash of all posts of a server whose key matches the pattern, byte for byte. It is an error when there
// is none.
func digest(service, pattern string) (string, error) {
	const (
		script = `redis-cli --scan --pattern "$1" | sort | xargs -n 500 redis-cli mget | sha256sum`
		empty  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	)
	out, err := execIn(service, "sh", "-c", script, "sh", pattern)
	sum, _, _ := strings.Cut(out, " ")
	if err == nil && (sum == "" || sum == empty) {
		err = fmt.Errorf("%s has no posts %s", service, pattern)
	}
	return sum, err
}
