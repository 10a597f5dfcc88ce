//go:build compose

package compose

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The checks of monitoring: scrape targets, rules, dashboards.

func checkPrometheusTargets(t *testing.T) {
	type target struct {
		Labels    map[string]string
		ScrapeURL string `json:"scrapeUrl"`
		Health    string
	}
	var up []target
	eventually(t, 60*time.Second, func() error {
		body, err := get(prometheus + "/api/v1/targets?state=active")
		if err != nil {
			return err
		}
		var a struct {
			Data struct{ ActiveTargets []target }
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			return err
		}
		up = a.Data.ActiveTargets
		for _, target := range up {
			if target.Health != "up" {
				return fmt.Errorf("%s is %s", target.ScrapeURL, target.Health)
			}
		}
		// Writer, three readers, reader-direct, auditor, apisix, redis-exporter and Prometheus itself.
		if len(up) != 9 {
			return fmt.Errorf("%d targets, want 9: %v", len(up), up)
		}
		return nil
	})
	for _, target := range up {
		t.Log(target.Labels["job"], target.ScrapeURL)
	}
	now(t, equals(map[string]string{`count(up{job="reader"} == 1)`: "3"}))
}

func checkPrometheusRules(t *testing.T) {
	groups, err := ruleGroups()
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, group := range groups {
		for _, rule := range group.Rules {
			count[rule.Type]++
			if rule.Health == "err" {
				t.Errorf("Prometheus cannot evaluate %s", rule.Name)
			}
			if rule.State == "firing" {
				t.Errorf("the alert %s fires", rule.Name)
			}
		}
	}
	t.Log("rules:", count)
	if count["alerting"] == 0 || count["recording"] == 0 {
		t.Errorf("Prometheus has no rules of a kind: %v", count)
	}
}

// checkDashboards runs every query of dashboards and rules while posts are read and written. arguments are passed to
// test/queries.
func checkDashboards(t *testing.T, arguments ...string) {
	addresses, err := containers("reader-direct")
	if err != nil {
		t.Fatal(err)
	}
	underReads(t, func() {
		direct := startReads("http://"+addresses[0].published()[0]+"/post?id=check", 50)
		defer direct.end(t)
		stop, stopped := make(chan struct{}), make(chan struct{})
		defer func() { close(stop); <-stopped }()
		go func() {
			defer close(stopped)
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				_, _ = put("seen", fmt.Sprint(n)) // without writes the queries have no data, and the check fails
			}
		}()
		out := run(t, append([]string{"go", "run", "./test/queries", "-prometheus", prometheus, "-wait", "90s"}, arguments...)...)
		t.Log(strings.TrimSpace(out))
	})
}

// awaitEvaluation blocks until Prometheus has evaluated every group of rules after now.
func awaitEvaluation(t testing.TB) {
	t.Helper()
	began := time.Now()
	eventually(t, 30*time.Second, func() error {
		groups, err := ruleGroups()
		if err != nil {
			return err
		}
		for _, g := range groups {
			if !g.LastEvaluation.After(began) {
				return fmt.Errorf("group %s was last evaluated at %v", g.Name, g.LastEvaluation)
			}
		}
		return nil
	})
}

type ruleGroup struct {
	Name           string
	LastEvaluation time.Time
	Rules          []struct{ Name, Type, Health, State string }
}

func ruleGroups() ([]ruleGroup, error) {
	body, err := get(prometheus + "/api/v1/rules")
	if err != nil {
		return nil, err
	}
	var a struct{ Data struct{ Groups []ruleGroup } }
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return nil, err
	}
	return a.Data.Groups, nil
}

func sorted(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return strings.Join(list, " ")
}
