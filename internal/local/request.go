package local

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"heavy-read-api/internal/stack/state"
)

const requestTimeout = 30 * time.Second

// endpoint returns the base URL of writer or gateway, and a client for it: the URL in a setting, which may be
// behind a proxy, or the address on this machine, which never is.
func (p *program) endpoint(setting, role string) (string, *http.Client, error) {
	transport := &http.Transport{DisableCompression: true}
	client := &http.Client{Transport: transport, Timeout: requestTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if given := os.Getenv(setting); given != "" {
		transport.Proxy = http.ProxyFromEnvironment
		return given, client, nil
	}
	c, err := choose(p.ctx)
	if err != nil {
		return "", nil, err
	}
	r, err := p.runtime(c)
	if err != nil {
		return "", nil, err
	}
	addr, err := r.address(role)
	return "http://" + addr, client, err
}

// testWrite writes a post and prints the answer.
func (p *program) testWrite(id string) error {
	id = cmp.Or(id, "hello")
	base, client, err := p.endpoint("WRITER_URL", state.Writer)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{
		"id": id, "title": "A post", "content": "Written by make test-write at " + time.Now().Format(time.RFC1123), "author": "make",
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, base+"/create", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token := os.Getenv("WRITER_TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if err := p.request(client, req); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "Read it: make test-read POST_ID='%s'\n", strings.ReplaceAll(id, "'", `'\''`))
	return nil
}

// testRead reads a post through the gateway and prints the answer.
func (p *program) testRead(id string) error {
	if id == "" {
		return usage("POST_ID is missing: make test-read POST_ID=hello")
	}
	base, client, err := p.endpoint("GATEWAY_URL", state.Gateway)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, base+"/post?id="+url.QueryEscape(id), nil)
	if err != nil {
		return err
	}
	return p.request(client, req)
}

// request sends a request and prints the answer with its headers. It fails on a status of 400 or more.
func (p *program) request(client *http.Client, req *http.Request) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := httputil.DumpResponse(res, true)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", req.URL, err)
	}
	fmt.Fprintf(p.out, "%s\n", bytes.TrimSuffix(answer, []byte("\n")))
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", req.URL, res.Status)
	}
	return nil
}
