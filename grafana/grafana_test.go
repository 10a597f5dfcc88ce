package grafana

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// board is a dashboard with only the members that ours use. Members that Grafana adds in an export would be
// noise in diffs.
type board struct {
	UID           string           `json:"uid"`
	Title         string           `json:"title"`
	Description   string           `json:"description"`
	Tags          []string         `json:"tags"`
	SchemaVersion int              `json:"schemaVersion"`
	Version       int              `json:"version"`
	Editable      bool             `json:"editable"`
	Refresh       string           `json:"refresh"`
	Time          map[string]any   `json:"time"`
	Timezone      string           `json:"timezone"`
	GraphTooltip  int              `json:"graphTooltip"`
	Links         []map[string]any `json:"links"`
	Annotations   struct {
		List []annotation `json:"list"`
	} `json:"annotations"`
	Templating struct {
		List []struct {
			Name       string         `json:"name"`
			Label      string         `json:"label"`
			Type       string         `json:"type"`
			Datasource datasource     `json:"datasource"`
			Query      map[string]any `json:"query"`
			Definition string         `json:"definition"`
			Refresh    int            `json:"refresh"`
			Sort       int            `json:"sort"`
			Multi      bool           `json:"multi"`
			IncludeAll bool           `json:"includeAll"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

// annotation marks times in all panels: those at which its query has a value, or the values themselves.
type annotation struct {
	Name            string     `json:"name"`
	Enable          bool       `json:"enable"`
	IconColor       string     `json:"iconColor"`
	Datasource      datasource `json:"datasource"`
	Expr            string     `json:"expr"`
	UseValueForTime bool       `json:"useValueForTime"`
	TitleFormat     string     `json:"titleFormat"`
	TextFormat      string     `json:"textFormat"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	GridPos     rectangle  `json:"gridPos"`
	Datasource  datasource `json:"datasource"`
	Targets     []struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
		Instant      bool   `json:"instant"` // queries the current value instead of the range
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit       string         `json:"unit"`
			Color      map[string]any `json:"color"`
			Thresholds struct {
				Mode  string `json:"mode"`
				Steps []struct {
					Color string   `json:"color"`
					Value *float64 `json:"value"`
				} `json:"steps"`
			} `json:"thresholds"`
			Mappings []any          `json:"mappings"`
			Custom   map[string]any `json:"custom"`
			Decimals *int           `json:"decimals"`
			NoValue  string         `json:"noValue"`
			Min      *float64       `json:"min"`
			Max      *float64       `json:"max"`
		} `json:"defaults"`
		Overrides []any `json:"overrides"`
	} `json:"fieldConfig"`
	Options   map[string]any `json:"options"`
	Collapsed bool           `json:"collapsed"` // for a row
	Panels    []panel        `json:"panels"`    // panels of a collapsed row
}

// rectangle is a position in Grafana's grid of 24 columns.
type rectangle struct{ X, Y, W, H int }

func (r rectangle) overlaps(s rectangle) bool {
	return r.X < s.X+s.W && s.X < r.X+r.W && r.Y < s.Y+s.H && s.Y < r.Y+r.H
}

// units lists Grafana's names of the units that we use.
var units = []string{"none", "short", "percentunit", "s", "bytes", "Bps", "reqps", "wps", "ops", "cps"}

// check decodes a dashboard and returns all violations of our rules. source is the uid of the data source that
// the panels must use.
func check(content []byte, source string) (*board, error) {
	d := json.NewDecoder(strings.NewReader(string(content)))
	d.DisallowUnknownFields()
	var b board
	if err := d.Decode(&b); err != nil {
		return nil, err
	}
	var faults []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	rule(strings.HasPrefix(b.UID, "heavy-read-"), "uid %q", b.UID)
	rule(b.Title != "" && b.Description != "", "no title or description")
	rule(slices.Equal(b.Tags, []string{"heavy-read-api"}), "tags %v: the dashboards link to each other by their tag", b.Tags)
	rule(!b.Editable, "editable in the browser, where changes would be lost")
	rule(len(b.Panels) > 0, "no panel")
	for _, v := range b.Templating.List {
		rule(v.Datasource.UID == source, "variable %s uses data source %q", v.Name, v.Datasource.UID)
		rule(v.Definition == v.Query["query"], "variable %s: definition and query differ", v.Name)
	}
	for _, a := range b.Annotations.List {
		rule(a.Datasource.Type == "prometheus" && a.Datasource.UID == source, "annotation %s uses data source %+v", a.Name, a.Datasource)
		rule(a.Name != "" && a.Enable && a.Expr != "" && a.TitleFormat != "", "annotation %q is off, or has no query or no title", a.Name)
	}
	for i, p := range b.Panels {
		place := p.GridPos
		rule(place.X >= 0 && place.W > 0 && place.H > 0 && place.X+place.W <= 24, "panel %q is at %+v", p.Title, place)
		for _, other := range b.Panels[:i] {
			rule(p.ID != other.ID, "two panels have the id %d", p.ID)
			rule(p.Title != other.Title, "two panels have the title %q", p.Title)
			rule(!place.overlaps(other.GridPos), "panel %q overlaps %q", p.Title, other.Title)
		}
		rule(p.ID > 0 && p.Title != "", "panel %d %q", p.ID, p.Title)
		if p.Type != "row" {
			checkPanel(&p, source, rule)
		}
	}
	return &b, errors.Join(faults...)
}

func checkPanel(p *panel, source string, rule func(bool, string, ...any)) {
	field := &p.FieldConfig.Defaults
	rule(slices.Contains([]string{"stat", "timeseries", "state-timeline"}, p.Type), "panel %q is a %s", p.Title, p.Type)
	rule(strings.HasSuffix(p.Description, "."), "the description of panel %q is not a sentence", p.Title)
	rule(slices.Contains(units, field.Unit), "panel %q has the unit %q", p.Title, field.Unit)
	rule(p.Datasource.Type == "prometheus" && p.Datasource.UID == source, "panel %q uses data source %+v", p.Title, p.Datasource)
	rule(len(p.Targets) > 0, "panel %q has no query", p.Title)
	for i, target := range p.Targets {
		rule(target.RefID == string(rune('A'+i)), "panel %q: query %d has the refId %q", p.Title, i, target.RefID)
		rule(target.Expr != "" && target.LegendFormat != "", "panel %q: query %s has no expression or no legend", p.Title, target.RefID)
	}
	steps := field.Thresholds.Steps
	rule(len(steps) > 0 && steps[0].Value == nil, "panel %q: the first threshold must have no value, for the lowest values", p.Title)
	for i := 1; i < len(steps); i++ {
		low := steps[i-1].Value
		rule(steps[i].Value != nil && (low == nil && i == 1 || low != nil && *low < *steps[i].Value), "panel %q: threshold %d is not above the previous one", p.Title, i)
	}
}

// source returns the uid of the provisioned data source.
func source(t *testing.T) string {
	t.Helper()
	var file struct {
		Datasources []struct {
			UID, Type, URL string
			IsDefault      bool `yaml:"isDefault"`
		}
	}
	parse(t, "provisioning/datasources/prometheus.yaml", &file)
	if len(file.Datasources) != 1 {
		t.Fatalf("%d data sources, want one", len(file.Datasources))
	}
	s := file.Datasources[0]
	if s.UID == "" || s.Type != "prometheus" || s.URL != "http://prometheus:9090" || !s.IsDefault {
		t.Errorf("data source %+v", s)
	}
	return s.UID
}

func parse(t *testing.T, path string, to any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, to); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestProvider(t *testing.T) {
	var file struct {
		Providers []struct {
			Type           string
			AllowUIUpdates bool `yaml:"allowUiUpdates"`
			Options        struct{ Path string }
		}
	}
	parse(t, "provisioning/dashboards/dashboards.yaml", &file)
	if len(file.Providers) != 1 {
		t.Fatalf("%d providers, want one", len(file.Providers))
	}
	if p := file.Providers[0]; p.Type != "file" || p.AllowUIUpdates || p.Options.Path != "/etc/heavy-read-api/dashboards" {
		t.Errorf("provider %+v", p)
	}
}

func TestDashboards(t *testing.T) {
	uid := source(t)
	paths, err := filepath.Glob("dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	uids := map[string]string{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := check(content, uid)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if want := "heavy-read-" + strings.TrimSuffix(filepath.Base(path), ".json"); b.UID != want {
			t.Errorf("%s: uid %q, want %q, or links to it break", path, b.UID, want)
		}
		if other := uids[b.UID]; other != "" {
			t.Errorf("%s and %s have the same uid", path, other)
		}
		uids[b.UID] = path
	}
	for _, uid := range []string{"heavy-read-overview", "heavy-read-reader", "heavy-read-gateway", "heavy-read-redis"} {
		if uids[uid] == "" {
			t.Errorf("no dashboard %s", uid)
		}
	}
}

// TestCheckRefuses breaks each rule and checks that check reports it.
func TestCheckRefuses(t *testing.T) {
	uid := source(t)
	content, err := os.ReadFile("dashboards/overview.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new string }{
		{`"uid": "heavy-read-overview"`, `"uid": "xyz"`},
		{`"uid": "heavy-read-overview"`, `"uid": "heavy-read-overview", "iteration": 1`},
		{`"tags": ["heavy-read-api"]`, `"tags": []`},
		{`"editable": false`, `"editable": true`},
		{`"id": 2,`, `"id": 1,`},
		{`"title": "Reads"`, `"title": "Readers ready"`},
		{`"title": "Reads"`, `"title": ""`},
		{`"type": "stat"`, `"type": "graph"`},
		{`because the client already had the current version."`, `because the client already had the current version"`},
		{`"w": 3, "x": 3,`, `"w": 4, "x": 3,`},
		{`"w": 3, "x": 21,`, `"w": 4, "x": 21,`},
		{`"uid": "prometheus"`, `"uid": "other"`},
		{`"enable": true`, `"enable": false`},
		{`"datasource": {"type": "prometheus", "uid": "prometheus"},
      "targets"`, `"datasource": {"type": "prometheus", "uid": "other"},
      "targets"`},
		{`"refId": "B"`, `"refId": "A"`},
		{`"legendFormat": "ready"`, `"legendFormat": ""`},
		{`"expr": "sum(reader:ready{job=\"reader\"})"`, `"expr": ""`},
		{`"unit": "none"`, `"unit": "readers"`},
		{`"value": null}`, `"value": 0}`},
		{`{"color": "green", "value": 3}`, `{"color": "green", "value": 1}`},
	} {
		broken := strings.Replace(string(content), test.old, test.new, 1)
		if broken == string(content) {
			t.Errorf("the dashboard does not contain %q", test.old)
		} else if _, err := check([]byte(broken), uid); err == nil {
			t.Errorf("%s instead of %s is not reported", test.new, test.old)
		}
	}
}
