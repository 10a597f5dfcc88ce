package layout

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/supervisor"
)

// GatewayNodes returns the ports of the readers that the gateway lists in its metrics, and whether each is in
// rotation.
func (c *Config) GatewayNodes(ctx context.Context) (map[int]bool, error) {
	url := "http://" + supervisor.Address(c.GatewayMetricsPort) + GatewayMetricsPath
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := health.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, res.Status)
	}
	nodes := make(map[int]bool)
	lines := bufio.NewScanner(io.LimitReader(res.Body, 8<<20))
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "apisix_upstream_status{") {
			continue
		}
		labels, value, _ := strings.Cut(lines.Text(), "} ")
		_, label, _ := strings.Cut(labels, `port="`)
		number, _, _ := strings.Cut(label, `"`)
		port, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%s has no port in %q", url, lines.Text())
		}
		nodes[port] = value == "1"
	}
	return nodes, lines.Err()
}
