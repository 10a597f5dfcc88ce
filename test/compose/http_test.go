//go:build compose

package compose

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	gateway          = "http://127.0.0.1:" + cmp.Or(os.Getenv("GATEWAY_PORT"), "9080")
	writer           = "http://127.0.0.1:" + cmp.Or(os.Getenv("WRITER_PORT"), "8080")
	writerOperations = "http://127.0.0.1:" + cmp.Or(os.Getenv("WRITER_METRICS_PORT"), "9092")
	prometheus       = "http://127.0.0.1:" + cmp.Or(os.Getenv("PROMETHEUS_PORT"), "9090")
)

// client connects to this machine only, so it ignores the proxy of the environment.
var client = newClient(64)

func newClient(connections int) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
}

type response struct {
	status int
	header http.Header
	body   string
}

func send(method, url string, header http.Header, body string) (response, error) {
	req, err := http.NewRequestWithContext(testContext, method, url, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if header != nil {
		req.Header = header
	}
	res, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(content)}, err
}

// get reads a URL that must answer 200.
func get(url string) (string, error) {
	a, err := send(http.MethodGet, url, nil, "")
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("GET %s returned %d: %.300s", url, a.status, a.body)
	}
	return a.body, err
}

func mustGet(t testing.TB, url string) string {
	t.Helper()
	body, err := get(url)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func expectStatus(t testing.TB, want int, method, url string) http.Header {
	t.Helper()
	a, err := send(method, url, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if a.status != want {
		t.Fatalf("%s %s returned %d, want %d: %.300s", method, url, a.status, want, a.body)
	}
	return a.header
}

// put writes a post and returns its version.
func put(id, content string) (string, error) {
	body, err := json.Marshal(map[string]string{"id": id, "title": "t", "content": content})
	if err != nil {
		return "", err
	}
	a, err := send(http.MethodPost, writer+"/create", http.Header{"Content-Type": {"application/json"}}, string(body))
	if err != nil {
		return "", err
	}
	if a.status >= 400 {
		return "", fmt.Errorf("the writer returned %d: %.300s", a.status, a.body)
	}
	version := a.header.Get("X-Version")
	if version == "" {
		return "", errors.New("the writer's response has no X-Version")
	}
	return version, nil
}

func mustPut(t testing.TB, id, content string) {
	t.Helper()
	if _, err := put(id, content); err != nil {
		t.Fatal(err)
	}
}

// refusesWrites is a condition for eventually.
func refusesWrites() error {
	if _, err := put("check", "refused"); err == nil {
		return errors.New("the writer accepts writes")
	}
	return nil
}

// rotation sends n reads through the gateway and returns how many each reader served.
func rotation(n int) (map[string]int, error) {
	served := make(map[string]int)
	for range n {
		a, err := send(http.MethodGet, gateway+"/post?id=check", nil, "")
		if err != nil {
			return nil, err
		}
		if a.status != http.StatusOK {
			return nil, fmt.Errorf("the gateway returned %d: %.300s", a.status, a.body)
		}
		served[a.header.Get("X-Served-By")]++
	}
	return served, nil
}

// inRotation returns a condition for eventually: the gateway uses n readers.
func inRotation(n int) func() error {
	return func() error {
		served, err := rotation(60)
		if err == nil && len(served) != n {
			err = fmt.Errorf("readers in rotation: %v, want %d", served, n)
		}
		return err
	}
}

// now fails the test unless a condition for eventually holds already.
func now(t testing.TB, condition func() error) {
	t.Helper()
	if err := condition(); err != nil {
		t.Fatal(err)
	}
}

// converged is a condition for eventually: a new post can be read from every reader, and all readers have the same
// epoch, version and number of posts, and a live subscription.
func converged() error {
	content := fmt.Sprintf("converged %d", time.Now().UnixNano())
	version, err := put("check", content)
	if err != nil {
		return err
	}
	if err := onEveryReader(version, content); err != nil {
		return err
	}
	addresses, err := readers()
	if err != nil {
		return err
	}
	states := make(map[string][]string)
	for _, address := range addresses {
		body, err := get("http://" + address + "/status")
		if err != nil {
			return err
		}
		var s struct {
			Epoch          string
			AppliedVersion uint64 `json:"applied_version"`
			Entries        int64
			Synced         bool
			Subscription   string
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			return err
		}
		if !s.Synced || s.Subscription != "live" {
			return fmt.Errorf("%s is not synced with Redis: %s", address, body)
		}
		state := fmt.Sprint(s.Epoch, s.AppliedVersion, s.Entries)
		states[state] = append(states[state], address)
	}
	if len(states) != 1 {
		return fmt.Errorf("readers differ in epoch, version or number of posts: %v", states)
	}
	return nil
}

// onEveryReader returns an error unless every reader serves the post check with its content as of a version.
func onEveryReader(version, content string) error {
	addresses, err := readers()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		a, err := send(http.MethodGet, "http://"+address+"/post?id=check", http.Header{"X-Min-Version": {version}}, "")
		if err != nil {
			return err
		}
		if !strings.Contains(a.body, content) {
			return fmt.Errorf("%s does not have the new post: %d %.300s", address, a.status, a.body)
		}
	}
	return nil
}

// query evaluates an expression in Prometheus and returns the values of the series.
func query(expression string) ([]string, error) {
	body, err := get(prometheus + "/api/v1/query?" + url.Values{"query": {expression}}.Encode())
	if err != nil {
		return nil, err
	}
	var a struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return nil, err
	}
	var values []string
	for _, series := range a.Data.Result {
		values = append(values, fmt.Sprint(series.Value[1]))
	}
	return values, nil
}

// equals returns a condition for eventually: each expression has one series, with the value.
func equals(want map[string]string) func() error {
	return func() error {
		for expression, value := range want {
			got, err := query(expression)
			if err != nil {
				return err
			}
			if len(got) != 1 || got[0] != value {
				return fmt.Errorf("%s is %v, want %s", expression, got, value)
			}
		}
		return nil
	}
}

// firing returns a condition for eventually: the alert fires.
func firing(alert string) func() error {
	return func() error {
		got, err := query(fmt.Sprintf("ALERTS{alertname=%q, alertstate=\"firing\"}", alert))
		if err == nil && len(got) == 0 {
			err = errors.New(alert + " does not fire")
		}
		return err
	}
}
