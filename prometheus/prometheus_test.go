package prometheus

import (
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"heavy-read-api/internal/httpkit"
)

// TestStoppingReadersAreScraped checks that readers are scraped at least once during their drain. The alert
// ReaderGone relies on the metric reader_stopping, which is 1 only then.
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
	t.Errorf("the scrape interval of the readers must be shorter than the drain of %v: %+v", httpkit.Drain, config.ScrapeConfigs)
}
