package main

import "testing"

func TestParseNodes(t *testing.T) {
	const file = `upstreams:
  - id: readers
    nodes:
      - {host: 172.18.0.4, port: 80, weight: 1}
      - {host: 172.18.0.5, port: 80, weight: 1}
    # - {host: 172.18.0.6, port: 80, weight: 1}
`
	nodes, err := parseNodes([]byte(file + "#END\n"))
	if want := "172.18.0.4:80\n172.18.0.5:80\n"; err != nil || string(nodes) != want {
		t.Errorf("parseNodes = %q, %v; want %q", nodes, err, want)
	}
	if _, err := parseNodes([]byte(file)); err == nil {
		t.Error("a file without #END was accepted")
	}
}
