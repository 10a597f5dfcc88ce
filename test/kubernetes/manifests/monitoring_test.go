package manifests

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"go.yaml.in/yaml/v3"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

var update = flag.Bool("update", false, "write rules.yaml")

const component = Root + "/components/prometheus-operator"

// rulesHead precedes the groups of prometheus/rules, which have the same form in a PrometheusRule.
const rulesHead = `# Generated from prometheus/rules: go test ./manifests -run TestRules -update, in test/kubernetes.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: heavy-read-api
spec:
  groups:
`

// TestRules compares the PrometheusRule with the files that Prometheus loads in Docker: kustomize cannot put a file into
// spec.
func TestRules(t *testing.T) {
	want := rulesHead
	for _, name := range []string{"recording.yml", "alerts.yml"} {
		content, err := os.ReadFile(filepath.Join(repository, "prometheus/rules", name))
		if err != nil {
			t.Fatal(err)
		}
		_, groups, ok := strings.Cut(string(content), "\ngroups:\n")
		if !ok {
			_, groups, ok = strings.Cut(string(content), "groups:\n")
		}
		if !ok {
			t.Fatalf("%s has no groups", name)
		}
		for line := range strings.Lines(groups) {
			if line != "\n" {
				line = "  " + line
			}
			want += line
		}
	}
	file := filepath.Join(component, "rules.yaml")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s differs from prometheus/rules: run this test with -update", file)
	}
	entries, err := os.ReadDir(filepath.Join(repository, "prometheus/rules"))
	if err != nil || len(entries) != 2 {
		t.Errorf("prometheus/rules has %d files (%v), and the PrometheusRule those of two", len(entries), err)
	}
}

// TestMonitors compares the monitors with the Services that they select, and with the jobs of prometheus.yml.
func TestMonitors(t *testing.T) {
	stream, err := BuildWithOperator(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Decode(stream)
	if err != nil {
		t.Fatal(err)
	}

	content, err := os.ReadFile(filepath.Join(repository, "prometheus/prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var prometheus struct {
		Global struct {
			Interval time.Duration `yaml:"scrape_interval"`
			Timeout  time.Duration `yaml:"scrape_timeout"`
		}
		Jobs []struct {
			Name     string        `yaml:"job_name"`
			Path     string        `yaml:"metrics_path"`
			Interval time.Duration `yaml:"scrape_interval"`
			Timeout  time.Duration `yaml:"scrape_timeout"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(content, &prometheus); err != nil {
		t.Fatal(err)
	}
	type job struct {
		path              string
		interval, timeout time.Duration
	}
	want := map[string]job{}
	for _, j := range prometheus.Jobs {
		if j.Interval == 0 {
			j.Interval, j.Timeout = prometheus.Global.Interval, prometheus.Global.Timeout
		}
		want[j.Name] = job{j.Path, j.Interval, j.Timeout}
	}
	delete(want, "reader-direct")
	delete(want, "prometheus") // the operator's
	want["sentinel"] = want["redis"]

	got := map[string]job{}
	for _, o := range objects {
		m, ok := o.(*monitoring.ServiceMonitor)
		if !ok {
			continue
		}
		selector, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			service, ok := o.(*core.Service)
			if !ok || !selector.Matches(labels.Set(service.Labels)) {
				continue
			}
			for _, e := range m.Spec.Endpoints {
				if slices.ContainsFunc(service.Spec.Ports, func(p core.ServicePort) bool {
					return e.TargetPort == nil && p.Name == e.Port || e.TargetPort != nil && p.TargetPort == *e.TargetPort
				}) {
					got[service.Labels[m.Spec.JobLabel]] = job{e.Path, duration(t, e.Interval), duration(t, e.ScrapeTimeout)}
				}
			}
		}
	}
	for name, j := range want {
		if got[name] != j {
			t.Errorf("the job %s is %v in prometheus.yml and %v here", name, j, got[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("there is no job %s in prometheus.yml", name)
		}
	}
}

func duration(t *testing.T, d monitoring.Duration) time.Duration {
	t.Helper()
	parsed, err := time.ParseDuration(string(d))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
