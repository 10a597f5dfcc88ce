package layout

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// NoPrometheus is the value of PROMETHEUS_SERVER that starts none.
const NoPrometheus = "none"

// Files of Prometheus in the run folder.
const (
	prometheusConfig  = "prometheus.yml"
	prometheusTargets = "prometheus-targets.json"
	prometheusData    = "prometheus"
)

// prometheusYAML is the configuration of Prometheus: the rules of the repository, and a file with the targets, which it
// watches. The interval of the readers is that of prometheus/prometheus.yml, for the same reason.
const prometheusYAML = `# Written at each start of the stack.
global:
  scrape_interval: 2s
  scrape_timeout: 2s
  evaluation_interval: 5s
rule_files: [%q]
scrape_configs:
  - job_name: stack
    file_sd_configs: [{files: [%q], refresh_interval: 5s}]
`

// Prometheus returns the spec of a Prometheus that scrapes the stack. ok is false if it was not asked for, or there is
// none; why says so.
func (c *Config) Prometheus() (s supervisor.Spec, ok bool, why string, err error) {
	if c.PrometheusServer == NoPrometheus {
		return s, false, "PROMETHEUS_SERVER=" + NoPrometheus, nil
	}
	path, err := exec.LookPath(c.PrometheusServer)
	if err != nil {
		return s, false, "there is no " + c.PrometheusServer + " on the PATH", nil
	}
	s = supervisor.Spec{
		Name: "prometheus", Role: state.Prometheus, Path: path, Env: c.Env,
		Ports: []supervisor.Port{{Number: c.PrometheusPort, Env: "PROMETHEUS_PORT"}},
		Argv: []string{path,
			"--config.file=" + c.File(prometheusConfig),
			"--storage.tsdb.path=" + c.File(prometheusData), "--storage.tsdb.retention.time=2d", "--storage.tsdb.retention.size=500MB",
			"--web.listen-address=" + supervisor.Address(c.PrometheusPort),
		},
		Check:   health.HTTP("http://" + supervisor.Address(c.PrometheusPort) + "/-/ready"),
		Notable: func(line string) bool { return strings.Contains(line, "level=error") },
	}
	if err := supervisor.CheckPorts(s); err != nil {
		return s, false, err.Error(), nil
	}
	rules, err := filepath.Abs("prometheus/rules/*.yml")
	if err != nil {
		return s, false, "", fmt.Errorf("find the rules of Prometheus: %w", err)
	}
	text := fmt.Sprintf(prometheusYAML, rules, c.File(prometheusTargets))
	if err := rundir.WriteFile(c.File(prometheusConfig), text); err != nil {
		return s, false, "", fmt.Errorf("write the configuration of Prometheus: %w", err)
	}
	return s, true, "", os.MkdirAll(c.File(prometheusData), 0o700)
}

// target is an entry of Prometheus's file of targets.
type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// ListTargets writes the file with Prometheus's targets: every process that has metrics. The jobs have the names that
// the rules use, and `instance` is the name of the process.
func (c *Config) ListTargets(procs []*supervisor.Process) error {
	all := []target{{[]string{supervisor.Address(c.PrometheusPort)}, map[string]string{"job": "prometheus", "instance": "prometheus"}}}
	for _, p := range procs {
		address, path, ok := strings.Cut(strings.TrimPrefix(p.Metrics, "http://"), "/")
		if !ok {
			continue
		}
		job := p.Role
		switch {
		case p.Role == state.Gateway:
			job = "apisix"
		case p.Ports[0].Env == "DIRECT_PORT":
			job = p.Name
		}
		all = append(all, target{[]string{address}, map[string]string{"job": job, "instance": p.Name, "__metrics_path__": "/" + path}})
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := rundir.WriteFile(c.File(prometheusTargets), string(text)+"\n"); err != nil {
		return fmt.Errorf("write the targets of Prometheus: %w", err)
	}
	return nil
}
