package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestHealthChecksAskNoProxy runs the health checks that use wget, with that of Alpine's images. Docker's
// configuration may give every container a proxy.
func TestHealthChecksAskNoProxy(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("no busybox")
	}
	content, err := os.ReadFile("../docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Healthcheck struct{ Test []string }
		}
	}
	if err := yaml.Unmarshal(content, &compose); err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(service.Close)
	checks := 0
	for name, s := range compose.Services {
		at := slices.Index(s.Healthcheck.Test, "wget")
		if at < 0 {
			continue
		}
		checks++
		command := append([]string{"busybox"}, s.Healthcheck.Test[at:]...)
		u, err := url.Parse(command[len(command)-1])
		if err != nil {
			t.Fatal(err)
		}
		command[len(command)-1] = service.URL + u.Path
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Env = append(os.Environ(), unreachable...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %q: %v %s", name, command, err, out)
		}
	}
	if checks == 0 {
		t.Error("no health check uses wget")
	}
}

// unreachable is the address of a proxy that does not listen, for every kind of request.
var unreachable = []string{"http_proxy=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1",
	"all_proxy=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1", "no_proxy=", "NO_PROXY="}
