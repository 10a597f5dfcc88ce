package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	requestTimeout = 10 * time.Second
	maxAnswer      = 16 << 20 // bytes
)

// prometheus is a Prometheus server.
type prometheus struct{ url string }

// get asks the API for what path and form say, and unmarshals the answer's data into data.
func (p *prometheus) get(ctx context.Context, path string, form url.Values, data any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(p.url, "/")+"/api/v1/"+path+"?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("GET /api/v1/%s answered %s: %w", path, res.Status, err)
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}

// names returns the names of all metrics.
func (p *prometheus) names(ctx context.Context) (map[string]bool, error) {
	var list []string
	if err := p.get(ctx, "label/__name__/values", nil, &list); err != nil {
		return nil, fmt.Errorf("ask Prometheus for its metrics: %w", err)
	}
	names := map[string]bool{"ALERTS": true} // made by Prometheus itself, while there are alerts
	for _, name := range list {
		names[name] = true
	}
	return names, nil
}

// check reports why q has no answer; nil when it has.
func (p *prometheus) check(ctx context.Context, q *query, known map[string]bool) error {
	for _, name := range metrics(q.expr) {
		if !known[name] {
			return fmt.Errorf("no process has the metric %s", name)
		}
	}
	values := make(map[string][]string)
	for _, v := range q.variables {
		var list []string
		if err := p.get(ctx, "label/"+v.label+"/values", url.Values{"match[]": {v.metric}}, &list); err != nil {
			return fmt.Errorf("variable %s: %w", v.name, err)
		}
		if len(list) == 0 {
			return fmt.Errorf("variable %s has no value", v.name)
		}
		values[v.name] = list
	}
	for _, expr := range expand(q.expr, values) {
		n, err := p.numbers(ctx, expr)
		if err != nil {
			return err
		}
		if n == 0 && !q.alert {
			if expr != q.expr {
				return fmt.Errorf("no data for %s", expr)
			}
			return errors.New("no data")
		}
	}
	return nil
}

// numbers returns how many series with a number expr has now. NaN, the quantile of nothing, is none.
func (p *prometheus) numbers(ctx context.Context, expr string) (n int, err error) {
	var data struct {
		ResultType string
		Result     []struct{ Value [2]any }
	}
	if err := p.get(ctx, "query", url.Values{"query": {expr}}, &data); err != nil {
		return 0, err
	}
	if data.ResultType != "vector" {
		return 0, fmt.Errorf("the answer is a %s: a panel wants a vector", data.ResultType)
	}
	for _, series := range data.Result {
		text, _ := series.Value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) {
			n++
		}
	}
	return n, nil
}
