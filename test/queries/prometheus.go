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
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	requestTimeout = 10 * time.Second
	maxAnswer      = 16 << 20 // bytes
)

// prometheus is a Prometheus server.
type prometheus struct {
	url      string
	optional *regexp.Regexp // metrics that may be missing
}

// get sends a request to the API and unmarshals the data of the response into data.
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
		return fmt.Errorf("GET /api/v1/%s returned %s: %w", path, res.Status, err)
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
		return nil, fmt.Errorf("list the metrics: %w", err)
	}
	names := map[string]bool{"ALERTS": true} // exists only while an alert is pending or firing
	for _, name := range list {
		names[name] = true
	}
	return names, nil
}

// check returns why q has no data, or nil if it has.
func (p *prometheus) check(ctx context.Context, q *query, known map[string]bool) error {
	for _, name := range metrics(q.expr) {
		if !known[name] && !p.optional.MatchString(name) {
			return fmt.Errorf("no process exports the metric %s", name)
		}
	}
	values := make(map[string][]string)
	for _, v := range q.variables {
		// Only the values with recent samples: others belong to processes that have ended. After a restart of
		// Prometheus such a series goes on for five minutes, because no staleness marker was written.
		series, err := p.series(ctx, fmt.Sprintf("group by (%s) (present_over_time(%s[20s]))", v.label, v.metric))
		if err != nil {
			return fmt.Errorf("variable %s: %w", v.name, err)
		}
		if len(series) == 0 {
			return fmt.Errorf("variable %s has no value", v.name)
		}
		for _, s := range series {
			values[v.name] = append(values[v.name], s.Metric[v.label])
		}
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

// numbers returns how many series of expr have a number. NaN is none: it is the quantile of an empty histogram.
func (p *prometheus) numbers(ctx context.Context, expr string) (n int, err error) {
	all, err := p.series(ctx, expr)
	for _, series := range all {
		text, _ := series.Value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) {
			n++
		}
	}
	return n, err
}

// series is a series of a query's result: labels, and a pair of time and value.
type series struct {
	Metric map[string]string
	Value  [2]any
}

// series evaluates expr.
func (p *prometheus) series(ctx context.Context, expr string) ([]series, error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := p.get(ctx, "query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("the result is a %s, but a panel needs a vector", data.ResultType)
	}
	var all []series
	return all, json.Unmarshal(data.Result, &all)
}
