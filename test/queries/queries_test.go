package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	for _, test := range []struct {
		expr string
		want []string
	}{
		{`up`, []string{"up"}},
		{`sum by (job, instance) (rate(a_total{job=~"x|y", route="/post"}[1m]))`, []string{"a_total"}},
		{`histogram_quantile(0.99, sum by (le) (rate(b_bucket[$__rate_interval]))) / 1000`, []string{"b_bucket"}},
		{`level:a:rate1m{x="y"} / (b > 0) or level:a:rate1m * 0`, []string{"level:a:rate1m", "b"}},
		{`a unless on (x) b and ignoring (y) group_left (z) c offset 5m`, []string{"a", "b", "c"}},
		{`a{text="b or c{d"} > 1e3`, []string{"a"}},
		{`count(ALERTS{alertstate="firing"}) or vector(0)`, []string{"ALERTS"}},
		{`sum(a)+sum(b)`, []string{"a", "b"}},
	} {
		if got := metrics(test.expr); !slices.Equal(got, test.want) {
			t.Errorf("metrics(%s) = %q, want %q", test.expr, got, test.want)
		}
	}
}

func TestExpand(t *testing.T) {
	values := map[string][]string{"reader": {"a:80", "b:80"}}
	for _, test := range []struct {
		expr string
		want []string
	}{
		{`up`, []string{`up`}},
		{`rate(a[$__rate_interval])`, []string{`rate(a[20s])`}},
		{`a{instance="$reader"} - b{instance="$reader"}`, []string{`a{instance="a:80"} - b{instance="a:80"}`, `a{instance="b:80"} - b{instance="b:80"}`}},
	} {
		if got := expand(test.expr, values); !slices.Equal(got, test.want) {
			t.Errorf("expand(%s) = %q, want %q", test.expr, got, test.want)
		}
	}
}

// server maps expressions to values. An expression that it lacks has no data.
type server map[string]string

func (s server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(status, message string, data any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "error": message, "data": data})
	}
	switch r.URL.Path {
	case "/api/v1/label/__name__/values":
		reply("success", "", []string{"a", "b", "r"})
	case "/api/v1/query":
		value, ok := s[r.FormValue("query")]
		result := []any{}
		switch {
		case r.FormValue("query") == "group by (instance) (present_over_time(a[20s]))":
			for _, instance := range []string{"one", "two"} {
				result = append(result, map[string]any{"metric": map[string]string{"instance": instance}, "value": []any{1.5, "1"}})
			}
		case value == "refused":
			w.WriteHeader(http.StatusBadRequest)
			reply("error", "parse error", nil)
			return
		case ok:
			result = append(result, map[string]any{"metric": map[string]string{}, "value": []any{1.5, value}})
		}
		reply("success", "", map[string]any{"resultType": "vector", "result": result})
	default:
		http.NotFound(w, r)
	}
}

func TestRun(t *testing.T) {
	const board = `{"templating": {"list": [{"name": "reader", "query": {"query": "label_values(a, instance)"}}]},
		"panels": [{"title": "row"}, {"title": "P", "targets": [{"expr": %q}]}]}`
	const recording = "groups: [{name: g, rules: [{record: r, expr: b}, {alert: A, expr: %s}]}]"
	healthy := server{"a": "1", "b": "0", "r": "2", `a{instance="one"}`: "1", `a{instance="two"}`: "1"}
	for _, test := range []struct {
		name, panel, alert string
		answers            server
		want               string // text in the output; "" for success
	}{
		{"an alert that does not fire", "a", "b > 1", healthy, ""},
		{"each reader", `a{instance="$reader"}`, "b", healthy, ""},
		{"no data", "a > 5", "b", healthy, `board.json, panel "P": no data`},
		{"no data for one reader", `a{instance="$reader"}`, "b", server{"b": "0", "r": "2", `a{instance="one"}`: "1"}, `no data for a{instance="two"}`},
		{"not a number", "a", "b", server{"a": "NaN", "b": "0", "r": "2"}, "no data"},
		{"a metric that is not exported", "c or vector(0)", "b", healthy, "no process exports the metric c"},
		{"an optional metric that is missing", "redis_master_link_up or vector(-1)", "b", server{"redis_master_link_up or vector(-1)": "-1", "b": "0", "r": "2"}, ""},
		{"an optional metric that is missing, without an alternative", "redis_master_link_up", "b", healthy, "no data"},
		{"a metric of an alert that is not exported", "a", "c > 1", healthy, "alert A: no process exports the metric c"},
		{"an expression that Prometheus rejects", "a", "b", server{"a": "refused", "b": "0", "r": "2"}, "parse error"},
		{"a rule that was not loaded", "a", "b", server{"a": "1", "b": "0"}, "rules.yml, record r: no data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "grafana/dashboards/board.json"), fmt.Sprintf(board, test.panel))
			write(t, filepath.Join(root, "prometheus/rules/rules.yml"), fmt.Sprintf(recording, test.alert))
			p := httptest.NewServer(test.answers)
			defer p.Close()
			var out strings.Builder
			err := run(t.Context(), []string{"-prometheus", p.URL, "-root", root, "-wait", "0s"}, &out)
			if test.want == "" && err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if test.want != "" && (err == nil || !strings.Contains(out.String(), test.want)) {
				t.Errorf("error %v, output lacks %q:\n%s", err, test.want, out.String())
			}
		})
	}
}

// TestLate has a query return data at the second attempt.
func TestLate(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "grafana/dashboards/board.json"), `{"panels": [{"title": "P", "targets": [{"expr": "a"}]}]}`)
	write(t, filepath.Join(root, "prometheus/rules/rules.yml"), "groups: [{name: g, rules: [{alert: A, expr: b}]}]")
	attempts := 0
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") != "a" {
			server{}.ServeHTTP(w, r)
			return
		}
		if attempts++; attempts == 1 {
			server{}.ServeHTTP(w, r)
			return
		}
		server{"a": "1"}.ServeHTTP(w, r)
	}))
	defer p.Close()
	var out strings.Builder
	if err := run(t.Context(), []string{"-prometheus", p.URL, "-root", root, "-wait", time.Minute.String()}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if attempts != 2 {
		t.Errorf("%d attempts, want 2", attempts)
	}
}

// TestCollect compares the number of queries found in the project's own files with a count of lines.
func TestCollect(t *testing.T) {
	all, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, count := range []struct {
		pattern, word string
		each          int
	}{
		{"../../grafana/dashboards/*.json", `"expr":`, 1},
		{"../../grafana/dashboards/*.json", `"expr": "ALERTS{`, -1}, // an annotation, which has no series while no alert fires
		{"../../prometheus/rules/*.yml", "- record:", 2},
		{"../../prometheus/rules/*.yml", "- alert:", 1},
	} {
		paths, _ := filepath.Glob(count.pattern)
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want += count.each * strings.Count(string(content), count.word)
		}
	}
	if len(all) != want || want == 0 {
		t.Errorf("%d queries, want %d", len(all), want)
	}
}

func TestCollectNothing(t *testing.T) {
	if _, err := collect(t.TempDir()); err == nil || !strings.Contains(err.Error(), "-root") {
		t.Errorf("an empty folder: %v", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
