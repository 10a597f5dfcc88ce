package gateway

import (
	"maps"
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestSameAsAPISIX compares the settings of this gateway with the configuration of APISIX.
func TestSameAsAPISIX(t *testing.T) {
	type failures struct {
		Interval     int
		HTTPFailures int `yaml:"http_failures"`
		TCPFailures  int `yaml:"tcp_failures"`
		Timeouts     int
	}
	var apisix struct {
		Routes []struct {
			Name, URI string
			Timeout   struct{ Connect, Read float64 }
		}
		Upstreams []struct {
			ID            string
			KeepalivePool struct {
				Size        int
				IdleTimeout int `yaml:"idle_timeout"`
			} `yaml:"keepalive_pool"`
			Retries      int
			RetryTimeout float64 `yaml:"retry_timeout"`
			UpstreamHost string  `yaml:"upstream_host"`
			Timeout      struct{ Connect, Send, Read float64 }
			Checks       struct {
				Active struct {
					Timeout   float64
					Healthy   struct{ Interval, Successes int }
					Unhealthy failures
				}
				Passive struct{ Unhealthy failures }
			}
		}
	}
	content, err := os.ReadFile("../../apisix/apisix.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &apisix); err != nil {
		t.Fatal(err)
	}
	theirs := map[string]string{}
	for _, r := range apisix.Routes {
		theirs[r.URI] = r.Name
		if seconds := r.Timeout.Read; seconds != 0 && (r.URI != changesPath || seconds != changesTimeout.Seconds()) {
			t.Errorf("read timeout of %s: APISIX has %v s", r.URI, seconds)
		}
	}
	if !maps.Equal(theirs, routes) {
		t.Errorf("routes %v, APISIX has %v", routes, theirs)
	}

	var cfg Config
	cfg.setDefaults()
	u := apisix.Upstreams[0]
	active, passive := u.Checks.Active, u.Checks.Passive.Unhealthy
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	for _, setting := range []struct {
		name         string
		ours, theirs any
	}{
		{"name of the upstream", upstreamName, u.ID},
		{"Host of requests to readers", upstreamName, u.UpstreamHost},
		{"retries", retries, u.Retries},
		{"retry timeout", retryTimeout, seconds(u.RetryTimeout)},

		{"idle connections per reader", idleConnsPerNode, u.KeepalivePool.Size},
		{"idle timeout", idleTimeout, seconds(float64(u.KeepalivePool.IdleTimeout))},
		{"connect timeout", cfg.Timeout, seconds(u.Timeout.Connect)},
		{"read timeout", cfg.Timeout, seconds(u.Timeout.Read)},
		{"check timeout", cfg.Timeout, seconds(active.Timeout)},
		{"interval of checks", cfg.CheckInterval, seconds(float64(active.Healthy.Interval))},
		{"interval of checks of an unhealthy reader", cfg.CheckInterval, seconds(float64(active.Unhealthy.Interval))},
		{"passed checks until a reader is healthy", healthyAfter, active.Healthy.Successes},
		{"failed checks until a reader is unhealthy", unhealthyAfter, active.Unhealthy.HTTPFailures},
		{"refused checks until a reader is unhealthy", unhealthyAfter, active.Unhealthy.TCPFailures},
		{"timed-out checks until a reader is unhealthy", unhealthyAfter, active.Unhealthy.Timeouts},
		{"refused reads until a reader is unhealthy", refusedLimit, passive.TCPFailures},
		{"timed-out reads until a reader is unhealthy (0: never)", 0, passive.Timeouts},
	} {
		if setting.ours != setting.theirs {
			t.Errorf("%s: %v, APISIX has %v", setting.name, setting.ours, setting.theirs)
		}
	}
}
