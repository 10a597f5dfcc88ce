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
	optional *regexp.Regexp // metrics that no process needs to have
}

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
		if !known[name] && !p.optional.MatchString(name) {
			return fmt.Errorf("no process has the metric %s", name)
		}
	}
	values := make(map[string][]string)
	for _, v := range q.variables {
		// Not all values of the label, of which some belong to processes that are gone. A series whose end
		// a restarted Prometheus has not seen goes on for five minutes, but has no new samples.
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

// numbers returns how many series with a number expr has now. NaN, the quantile of nothing, is none.
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

// series is one of the answer to a query: its labels, the time and the value.
type series struct {
	Metric map[string]string
	Value  [2]any
}

// series returns what expr is now.
func (p *prometheus) series(ctx context.Context, expr string) ([]series, error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := p.get(ctx, "query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType != "vector" {
		return nil, fmt.Errorf("the answer is a %s: a panel wants a vector", data.ResultType)
	}
	var all []series
	return all, json.Unmarshal(data.Result, &all)
}
