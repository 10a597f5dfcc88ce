package prometheus

import (
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"heavy-read-api/internal/httpkit"
)

// TestStoppingReadersAreScraped: a reader says that it is being stopped for as long as it drains, and the alert
// for readers that are gone relies on it.
func TestStoppingReadersAreScraped(t *testing.T) {
	content, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		ScrapeConfigs []struct {
			Job      string        `yaml:"job_name"`
			Interval time.Duration `yaml:"scrape_interval"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	for _, c := range config.ScrapeConfigs {
		if c.Job == "reader" && c.Interval > 0 && c.Interval < httpkit.Drain {
			return
		}
	}
	t.Errorf("the readers are not scraped more often than every %v: %+v", httpkit.Drain, config.ScrapeConfigs)
}
