package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// query is an expression that must return data.
type query struct {
	from      string     // file and panel, or rule
	expr      string     // with the dashboard's variables in it
	variables []variable // variables of the dashboard
	alert     bool       // may return no data, because the alert does not fire or nothing is to be marked; its metrics must exist
	missing   error      // reason for which the last attempt returned no data; nil if it returned some
}

// variable is a dashboard variable: the values of a label of a metric.
type variable struct{ name, metric, label string }

// collect returns the queries of all dashboards and rules below root.
func collect(root string) ([]*query, error) {
	var all []*query
	for _, kind := range []struct {
		pattern string
		read    func(name string, content []byte) ([]*query, error)
	}{
		{"grafana/dashboards/*.json", dashboard},
		{"prometheus/rules/*.yml", rules},
	} {
		paths, err := filepath.Glob(filepath.Join(root, kind.pattern))
		if err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("no %s in %s: run it in the repository's folder, or use -root", kind.pattern, root)
		}
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			queries, err := kind.read(filepath.Base(path), content)
			if err == nil && len(queries) == 0 {
				err = errors.New("it has no query")
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, queries...)
		}
	}
	return all, nil
}

func dashboard(name string, content []byte) ([]*query, error) {
	var d struct {
		Templating struct {
			List []struct {
				Name  string
				Query struct{ Query string }
			}
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &d); err != nil {
		return nil, err
	}
	var variables []variable
	for _, v := range d.Templating.List {
		arguments, ok := strings.CutPrefix(v.Query.Query, "label_values(")
		metric, label, ok2 := strings.Cut(strings.TrimSuffix(arguments, ")"), ",")
		if !ok || !ok2 {
			return nil, fmt.Errorf("variable %s: %q is not label_values(metric, label)", v.Name, v.Query.Query)
		}
		variables = append(variables, variable{v.Name, strings.TrimSpace(metric), strings.TrimSpace(label)})
	}
	var all []*query
	for _, a := range d.Annotations.List {
		if !strings.HasPrefix(a.Expr, "ALERTS{") { // which has no series while no alert fires
			all = append(all, &query{from: fmt.Sprintf("%s, annotation %q", name, a.Name), expr: a.Expr, variables: variables, alert: true})
		}
	}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			all = append(all, &query{
				from: fmt.Sprintf("%s, panel %q", name, panel.Title), expr: target.Expr, variables: variables,
			})
		}
	}
	return all, nil
}

func rules(name string, content []byte) ([]*query, error) {
	var file struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		return nil, err
	}
	var all []*query
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if rule.Alert != "" {
				all = append(all, &query{from: name + ", alert " + rule.Alert, expr: rule.Expr, alert: true})
				continue
			}
			all = append(all,
				&query{from: name + ", rule " + rule.Record, expr: rule.Expr},
				// The recorded series, which is missing when Prometheus has not loaded the rule.
				&query{from: name + ", record " + rule.Record, expr: rule.Record})
		}
	}
	return all, nil
}
