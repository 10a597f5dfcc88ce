package main

import (
	"regexp"
	"slices"
	"strings"
)

// builtin replaces Grafana's own variables by their values at a scrape interval of five seconds.
var builtin = strings.NewReplacer("$__rate_interval", "20s", "$__interval", "5s", "$__range", "15m")

// expand returns expr once for each value of a variable that it uses. values has the values of the variables by name.
func expand(expr string, values map[string][]string) []string {
	all := []string{builtin.Replace(expr)}
	for name, list := range values {
		if !strings.Contains(expr, "$"+name) {
			continue
		}
		var next []string
		for _, e := range all {
			for _, value := range list {
				next = append(next, strings.ReplaceAll(e, "$"+name, value))
			}
		}
		all = next
	}
	return all
}

var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	enclosed = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]`) // matchers, ranges
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	word     = regexp.MustCompile(`\b([a-zA-Z_:][\w:]*)(\s*\()?`)
	keywords = []string{"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "and", "or", "unless", "offset"}
)

// metrics returns the names of the metrics in expr: words that are neither labels, functions nor keywords.
func metrics(expr string) []string {
	expr = quoted.ReplaceAllString(expr, "")
	expr = enclosed.ReplaceAllString(expr, "")
	expr = grouping.ReplaceAllString(expr, " ")
	var names []string
	for _, m := range word.FindAllStringSubmatch(expr, -1) {
		if name, function := m[1], m[2] != ""; !function && !slices.Contains(keywords, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
