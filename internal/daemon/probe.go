package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// probeTimeout bounds -health. It is shorter than the 3 s timeout of the containers' health checks.
const probeTimeout = 2 * time.Second

// probe requests /ready from the process that runs with the settings of c and returns its status as one
// line. It uses /ready rather than /health, so that services that wait for the container can use it. A reader
// that has lost its connection to Redis still answers 200 there, because it serves from memory.
func probe(c *Common, timeout time.Duration) (string, error) {
	host := cmp.Or(c.Host, "127.0.0.1")
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	client := http.Client{Timeout: timeout, Transport: new(http.Transport)} // ignores the proxy settings of the environment
	res, err := client.Get("http://" + net.JoinHostPort(host, strconv.Itoa(cmp.Or(c.ReadyPort, c.Port))) + "/ready")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var body struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&body); err != nil {
		return "", fmt.Errorf("GET /ready answered %s without valid JSON: %w", res.Status, err)
	}
	state := body.Status
	if len(body.Reasons) > 0 {
		state += ": " + strings.Join(body.Reasons, ", ")
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New(state)
	}
	return state, nil
}
