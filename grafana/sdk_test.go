package grafana

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// valid returns an error unless a dashboard conforms to Grafana's schema, including the panels and their options.
// Unknown members and invalid values are errors; missing members are not, because Grafana has defaults for them.
func valid(content []byte) error {
	//lint:ignore SA1019 provisioned files use this schema; its successor is for the HTTP API
	var strict, whole dashboard.Dashboard
	err := strict.UnmarshalJSONStrict(content)
	var faults cog.BuildErrors
	if errors.As(err, &faults) {
		err = nil
		for _, fault := range faults {
			if fault.Message != "required field is missing from input" {
				err = errors.Join(err, fault)
			}
		}
	}
	if wrong := json.Unmarshal(content, &whole); wrong != nil { // strict lacks the panels with missing members
		return errors.Join(err, wrong)
	}
	return errors.Join(err, whole.Validate())
}

func TestDashboardsFollowGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	paths, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d dashboards, %v", len(paths), err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(content); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}

	content, err := os.ReadFile("dashboards/overview.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new string }{
		{`"schemaVersion"`, `"schemaversion"`},
		{`"w": 3,`, `"w": 25,`},
		{`"gridPos": {"h"`, `"gridpos": {"h"`},
		{`"colorMode":`, `"colourMode":`},
		{`"lineWidth":`, `"linewidth":`},
	} {
		broken := strings.Replace(string(content), test.old, test.new, 1)
		if broken == string(content) {
			t.Errorf("the dashboard does not contain %q", test.old)
		} else if valid([]byte(broken)) == nil {
			t.Errorf("%s instead of %s is valid", test.new, test.old)
		}
	}
}
