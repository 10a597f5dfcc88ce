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

// probeTimeout bounds -health; it is below the time that a container's health check has.
const probeTimeout = 2 * time.Second

// probe asks the running process of c whether it takes part, and returns its answer in a line. It
// asks for /ready rather than /health: what waits for a container wants to know that it can be
// used, and a reader that has lost Redis still says yes there, because it serves from memory.
func probe(c *Common, timeout time.Duration) (string, error) {
	host := cmp.Or(c.Host, "127.0.0.1")
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	client := http.Client{Timeout: timeout, Transport: new(http.Transport)} // no proxy of the environment
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
		return "", fmt.Errorf("GET /ready answered %s and no JSON: %w", res.Status, err)
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
