// Package target controls the stack that is measured, in Docker or as local processes: it finds its services,
// reads their state, and kills, adds and restarts them.
package target

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// Addresses are the addresses (host:port) of the stack's services. They come from the environment variables
// that make start reads, with the same defaults. In Docker the addresses of the writer and the gateway depend
// on BIND_ADDRESS, so Detect asks Compose for them. A Runtime knows the addresses of Redis and of the readers
// behind the gateway.
type Addresses struct {
	Writer, Direct, Gateway, GatewayMetrics, Dashboard string
	WriterMetrics                                      string // in Docker; a local writer serves its metrics at Writer
	Token                                              string // the writer's bearer token
	RedisUsername, RedisPassword                       string // credentials of a Redis that the stack did not start
}

// Client sends requests to the stack. It ignores the proxy settings of the environment.
var Client = &http.Client{Transport: new(http.Transport)}

// Authorization returns the header line that writes need, or "".
func (a Addresses) Authorization() string {
	if a.Token == "" {
		return ""
	}
	return "Authorization: Bearer " + a.Token + "\r\n"
}

const host = "127.0.0.1"

// ParseAddresses returns the addresses that the environment configures.
func ParseAddresses(getenv func(string) string) (Addresses, error) {
	a := Addresses{Token: getenv("WRITER_TOKEN"), RedisUsername: getenv("REDIS_USERNAME"), RedisPassword: getenv("REDIS_PASSWORD")}
	port := func(env, value string) (int, error) {
		text := cmp.Or(getenv(env), value)
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 65535 {
			return 0, fmt.Errorf("%s=%s: use the port number that the stack was started with", env, text)
		}
		return n, nil
	}
	for _, s := range []struct {
		to         *string
		env, value string
	}{
		{&a.Writer, "WRITER_PORT", "8080"}, {&a.Direct, "DIRECT_PORT", "8081"}, {&a.Gateway, "GATEWAY_PORT", "9080"},
		{&a.GatewayMetrics, "GATEWAY_METRICS_PORT", "9091"}, {&a.Dashboard, "DASHBOARD_PORT", "3000"},
		{&a.WriterMetrics, "WRITER_METRICS_PORT", "9092"},
	} {
		n, err := port(s.env, s.value)
		if err != nil {
			return a, err
		}
		*s.to = net.JoinHostPort(host, strconv.Itoa(n))
	}
	return a, nil
}
