// Package target knows the stack that is measured: where its services listen, how they are, and how
// one of them is killed, added and brought back - in Docker and without.
package target

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// Addresses are where the stack's services answer, host:port. They come from the same environment
// variables, with the same defaults, as those that make start uses. Where the readers behind the
// gateway and Redis are, the Runtime knows; in Docker it also knows where BIND_ADDRESS has put the writer and the gateway.
type Addresses struct {
	Writer, Direct, Gateway, GatewayMetrics, Dashboard string
	WriterMetrics                                      string // in Docker; else they are on Writer
	Token                                              string // of the writer
	RedisUsername, RedisPassword                       string // of a Redis that the stack did not start
}

// Client asks the stack's processes. No proxy of the environment stands between them and the benchmark.
var Client = &http.Client{Transport: new(http.Transport)}

// Authorization returns the header line that writes need, or "".
func (a Addresses) Authorization() string {
	if a.Token == "" {
		return ""
	}
	return "Authorization: Bearer " + a.Token + "\r\n"
}

const host = "127.0.0.1"

// ParseAddresses reads the environment.
func ParseAddresses(getenv func(string) string) (Addresses, error) {
	a := Addresses{Token: getenv("WRITER_TOKEN"), RedisUsername: getenv("REDIS_USERNAME"), RedisPassword: getenv("REDIS_PASSWORD")}
	port := func(env, value string) (int, error) {
		text := cmp.Or(getenv(env), value)
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 65535 {
			return 0, fmt.Errorf("%s=%s: use the number of the port that the stack was started with", env, text)
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
