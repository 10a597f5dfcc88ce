package openapi_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/openapi"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
	"heavy-read-api/internal/writer"
)

// document is the parsed document, with what the test has seen of it.
type document struct {
	validator validator.Validator
	model     *v3.Document
	seen      map[string]bool // answers, as "GET /post 200"
}

func parse(t *testing.T) *document {
	t.Helper()
	doc, err := libopenapi.NewDocument([]byte(openapi.Document))
	if err != nil {
		t.Fatal(err)
	}
	model, err := doc.BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc, config.WithFormatAssertions())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		t.Fatal(text(errs))
	}
	return &document{validator: v, model: &model.Model, seen: map[string]bool{}}
}

// text joins errors.
func text(errs []*errors.ValidationError) string {
	var b strings.Builder
	for _, e := range errs {
		fmt.Fprintf(&b, "%s: %s", e.Message, e.Reason)
		for _, s := range e.SchemaValidationErrors {
			fmt.Fprintf(&b, "; %s: %s", s.FieldPath, s.Reason)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// operations returns the documented operations of a service, as path and methods.
func (d *document) operations(service string) map[string][]string {
	paths := map[string][]string{}
	for path, item := range d.model.Paths.PathItems.FromOldest() {
		for method, o := range item.GetOperations().FromOldest() {
			if slices.Contains(o.Tags, service) {
				paths[path] = append(paths[path], strings.ToUpper(method))
				if method == "get" && path != "/changes" {
					paths[path] = append(paths[path], http.MethodHead)
				}
			}
		}
		slices.Sort(paths[path])
	}
	return paths
}

// unseen returns the documented answers that the test has not seen.
func (d *document) unseen() (answers []string) {
	for path, item := range d.model.Paths.PathItems.FromOldest() {
		for method, o := range item.GetOperations().FromOldest() {
			for code := range o.Responses.Codes.FromOldest() {
				if answer := fmt.Sprint(strings.ToUpper(method), " ", path, " ", code); !d.seen[answer] {
					answers = append(answers, answer)
				}
			}
		}
	}
	slices.Sort(answers)
	return answers
}

// call is a request to a service, and the status of its answer.
type call struct {
	service *servicetest.Instance
	method  string
	target  string
	body    string
	header  []string
	status  int
}

func (c *call) send(t *testing.T) (*http.Response, []byte) {
	t.Helper()
	return c.service.Send(t, c.method, c.target, strings.NewReader(c.body), c.header...)
}

// check sends a request and verifies the answer.
func (d *document) check(t *testing.T, c call) (header http.Header, body string) {
	t.Helper()
	res, content := c.send(t)
	d.verify(t, c, res, content)
	return res.Header, string(content)
}

// verify validates the answer to a request, and the request unless it is to be refused as invalid.
func (d *document) verify(t *testing.T, c call, res *http.Response, content []byte) {
	t.Helper()
	name := fmt.Sprintf("%s %.80s", c.method, c.target)
	if res.StatusCode != c.status {
		t.Errorf("%s: %d %s, want %d", name, res.StatusCode, content, c.status)
	}
	d.seen[fmt.Sprint(c.method, " ", res.Request.URL.Path, " ", res.StatusCode)] = true
	d.answer(t, name, res, content)
	if c.status < 400 || c.status == http.StatusServiceUnavailable {
		req := res.Request.Clone(t.Context())
		req.Body = io.NopCloser(strings.NewReader(c.body))
		if ok, errs := d.validator.ValidateHttpRequest(req); !ok {
			t.Errorf("%s: the request: %s", name, text(errs))
		}
	}
}

// connection has the headers that belong to HTTP and not to the API.
var connection = []string{"Date", "Content-Length", "Connection", "Content-Type"}

// answer validates an answer.
func (d *document) answer(t *testing.T, name string, res *http.Response, content []byte) {
	t.Helper()
	res.Body = io.NopCloser(bytes.NewReader(content))
	if ok, errs := d.validator.GetResponseBodyValidator().ValidateResponseBody(res.Request, res); !ok {
		t.Errorf("%s: %d %v %.300s: %s", name, res.StatusCode, res.Header, content, text(errs))
	}
	declared := map[string]bool{}
	if item, ok := d.model.Paths.PathItems.Get(res.Request.URL.Path); ok {
		if o, ok := item.GetOperations().Get(strings.ToLower(res.Request.Method)); ok {
			if r, ok := o.Responses.Codes.Get(fmt.Sprint(res.StatusCode)); ok {
				for header := range r.Headers.FromOldest() {
					declared[http.CanonicalHeaderKey(header)] = true
				}
			}
		}
	}
	for header := range res.Header {
		if !declared[header] && !slices.Contains(connection, header) {
			t.Errorf("%s: %d has the header %s, which is not documented", name, res.StatusCode, header)
		}
	}
}

// lines validates lines of NDJSON: all but the last one by one schema, the last one by another.
func (d *document) lines(t *testing.T, body, each, last string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if len(lines) < 2 {
		t.Errorf("%d lines: %s", len(lines), body)
	}
	for i, line := range lines {
		name := each
		if i == len(lines)-1 {
			name = last
		}
		schema := d.model.Components.Schemas.GetOrZero(name).Schema()
		if ok, errs := schema_validation.NewSchemaValidator().ValidateSchemaString(schema, line); !ok {
			t.Errorf("%s: not %s: %s", line, name, text(errs))
		}
	}
}

func startReader(t *testing.T, redis string, options ...func(*reader.Config)) *servicetest.Instance {
	t.Helper()
	cfg := reader.Config{Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{redis}}, Drain: -1}, PodID: "reader-1"}
	for _, o := range options {
		o(&cfg)
	}
	return servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
		cfg.Listening = listening
		return reader.Run(ctx, cfg)
	})
}

func startWriter(t *testing.T, redis string, options ...func(*writer.Config)) *servicetest.Instance {
	t.Helper()
	cfg := writer.Config{Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{redis}}, Drain: -1},
		Timeout: 20 * time.Second, ReaderURL: "http://localhost:9080"}
	for _, o := range options {
		o(&cfg)
	}
	return servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
		cfg.Listening = listening
		return writer.Run(ctx, cfg)
	})
}

func waitReady(t *testing.T, i *servicetest.Instance) {
	t.Helper()
	eventually.Nil(t, func() error {
		if res, body := i.Send(t, "GET", "/ready", nil); res.StatusCode != http.StatusOK {
			return fmt.Errorf("/ready: %d %s", res.StatusCode, body)
		}
		return nil
	})
}

// Answers of a writer and a reader are as the document says, errors included: status, headers and bodies. The answers that
// this test does not provoke are listed at its end.
func TestAnswersAreAsDocumented(t *testing.T) {
	d := parse(t)
	b := redistest.StartEmbedded(t)
	w, r := startWriter(t, b.Addr()), startReader(t, b.Addr())
	down, empty := startWriter(t, "127.0.0.1:1", func(c *writer.Config) { c.Timeout = 50 * time.Millisecond }), startReader(t, "127.0.0.1:1")
	guarded := startWriter(t, b.Addr(), func(c *writer.Config) { c.Token = strings.Repeat("secret", 4) })
	withCookie := startWriter(t, b.Addr(), func(c *writer.Config) { c.ConsistencyCookie = true })
	waitReady(t, w)
	waitReady(t, withCookie)
	waitReady(t, r)

	post := `{"id":"a","title":"t"}`
	header, _ := d.check(t, call{w, "POST", "/create", post, nil, 201})
	etag, version := header.Get("Etag"), header.Get("X-Version")
	foreign := []string{"Sec-Fetch-Site", "cross-site"}
	for _, c := range []call{
		{w, "POST", "/create", post, nil, 200},
		{w, "POST", "/create", `{"id":""}`, nil, 400},
		{w, "POST", "/create", post, []string{"If-Match", etag}, 412},
		{w, "POST", "/create", `{"id":"a","title":"` + strings.Repeat("x", 1025) + `"}`, nil, 413},
		{w, "POST", "/create", post, []string{"Content-Type", "text/plain"}, 415},
		{w, "POST", "/create", post, []string{"Host", "example.org"}, 421},
		{w, "POST", "/create", post, foreign, 403},
		{guarded, "POST", "/create", post, nil, 401},
		{down, "POST", "/create", post, nil, 503},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, []string{"If-None-Match", "*"}, 201},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, nil, 200},
		{w, "PUT", "/post?id=", `{"title":"t"}`, nil, 400},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, []string{"If-None-Match", "*"}, 412},
		{w, "PUT", "/post?id=b", `{"title":"` + strings.Repeat("x", 1025) + `"}`, nil, 413},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, []string{"Content-Type", "text/plain"}, 415},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, []string{"Host", "example.org"}, 421},
		{w, "PUT", "/post?id=b", `{"title":"t"}`, foreign, 403},
		{guarded, "PUT", "/post?id=b", `{"title":"t"}`, nil, 401},
		{down, "PUT", "/post?id=b", `{"title":"t"}`, nil, 503},
		{withCookie, "PUT", "/post?id=e", `{"title":"t"}`, nil, 201},
		{withCookie, "PUT", "/post?id=e", `{"title":"t"}`, nil, 200},
		{withCookie, "DELETE", "/post?id=e", "", nil, 204},
		{w, "DELETE", "/post?id=b", "", nil, 204},
		{w, "DELETE", "/post?id=b", "", nil, 404},
		{w, "DELETE", "/post?id=", "", nil, 400},
		{w, "DELETE", "/post?id=a", "", []string{"If-Match", `"0"`}, 412},
		{w, "DELETE", "/post?id=a", "", []string{"Host", "example.org"}, 421},
		{w, "DELETE", "/post?id=a", "", foreign, 403},
		{guarded, "DELETE", "/post?id=a", "", nil, 401},
		{down, "DELETE", "/post?id=a", "", nil, 503},
		{w, "GET", "/openapi.yaml", "", nil, 200},
		{w, "GET", "/health", "", nil, 200},
		{w, "GET", "/ready", "", nil, 200},
		{down, "GET", "/ready", "", nil, 503},
		{w, "GET", "/status", "", nil, 200},
		{down, "GET", "/status", "", nil, 200},
		{w, "GET", "/metrics", "", nil, 200},
		{w, "POST", "/import", "", []string{"Content-Type", "text/plain"}, 415},
		{w, "POST", "/import", "", append([]string{"Content-Type", "application/x-ndjson"}, foreign...), 403},
		{w, "POST", "/import", "", []string{"Content-Type", "application/x-ndjson", "Host", "example.org"}, 421},
		{guarded, "POST", "/import", "", []string{"Content-Type", "application/x-ndjson"}, 401},
	} {
		d.check(t, c)
	}
	_, body := d.check(t, call{w, "POST", "/import", post + "\n{}\n" + `{"id":"c","title":"3"}`, []string{"Content-Type", "application/x-ndjson"}, 200})
	d.lines(t, body, "ImportedLine", "ImportSummary")
	d.redirect(t, w)

	header, _ = d.check(t, call{w, "PUT", "/post?id=d", `{"title":"4"}`, nil, 201})
	newest := header.Get("X-Version")
	future := regexp.MustCompile("-.*").ReplaceAllString(newest, "-99999")
	for _, path := range []string{"/post", "/post-redis", "/post-marshal"} {
		header, _ := d.check(t, call{r, "GET", path + "?id=a", "", []string{"X-Min-Version", newest}, 200})
		for _, c := range []call{
			{r, "GET", path + "?id=a", "", []string{"If-None-Match", header.Get("Etag")}, 304},
			{r, "GET", path, "", nil, 400},
			{r, "GET", path + "?id=a", "", []string{"X-Min-Version", "latest", "Cookie", "posts_version=x"}, 200},
			{r, "GET", path + "?id=x", "", nil, 404},
			{r, "GET", path + "?id=a", "", []string{"If-Match", `"0"`}, 412},
			{empty, "GET", path + "?id=a", "", nil, 503},
		} {
			d.check(t, c)
		}
	}
	_, body = d.check(t, call{r, "GET", "/changes?since=" + version, "", nil, 200})
	d.lines(t, body, "Change", "NextChange")
	_, body = d.check(t, call{r, "GET", "/posts?limit=1", "", []string{"X-Min-Version", newest}, 200})
	position := regexp.MustCompile(`"since":"(.*)"`).FindStringSubmatch(body)[1]
	small := startReader(t, b.Addr(), func(c *reader.Config) { c.Local.MaxSize = 64 << 10 })
	fill := func(id int) {
		d.check(t, call{w, "PUT", fmt.Sprint("/post?id=large-", id), `{"title":"t","content":"` + strings.Repeat("x", 30<<10) + `"}`, nil, 201})
	}
	for id := range 5 {
		fill(id)
	}
	waitReady(t, small)
	eventually.Nil(t, func() error {
		if res, body := small.Send(t, "GET", "/posts", nil); res.StatusCode != http.StatusConflict {
			return fmt.Errorf("/posts: %d %s", res.StatusCode, body)
		}
		return nil
	})
	const otherEpoch = "0123456789abcdef-5"
	for _, c := range []call{
		{r, "GET", "/posts?id=a&id=x&id=c", "", []string{"X-Min-Version", newest}, 200},
		{r, "GET", "/posts?after=a&limit=1000&since=" + position, "", nil, 200},
		{r, "GET", "/posts?limit=0", "", nil, 400},
		{small, "GET", "/posts", "", nil, 409},
		{r, "GET", "/posts?since=" + otherEpoch, "", nil, 410},
		{r, "GET", "/posts?id=a", "", []string{"X-Min-Version", future}, 503},
		{empty, "GET", "/posts", "", nil, 503},
		{r, "GET", "/changes?since=x", "", nil, 400},
		{r, "GET", "/changes?since=" + otherEpoch, "", nil, 410},
		{empty, "GET", "/changes", "", nil, 503},
		{r, "GET", "/openapi.yaml", "", nil, 200},
		{r, "GET", "/health", "", nil, 200},
		{r, "GET", "/ready", "", nil, 200},
		{empty, "GET", "/ready", "", nil, 503},
		{r, "GET", "/status", "", nil, 200},
		{empty, "GET", "/status", "", nil, 200},
		{r, "GET", "/metrics", "", nil, 200},
		{r, "GET", "/audit", "", nil, 200},
		{r, "GET", "/audit/keys?bucket=4096", "", nil, 400},
		{empty, "GET", "/audit/keys", "", nil, 503},
		{empty, "GET", "/audit/buckets", "", nil, 503},
		{r, "POST", "/audit/snapshot", "", nil, 403},
	} {
		d.check(t, c)
	}
	d.stream(t, r, version)
	for _, c := range []call{
		{r, "GET", "/audit/buckets", "", nil, 200},
		{r, "GET", "/audit/keys?bucket=1", "", nil, 200},
		{r, "POST", "/audit/snapshot", "", []string{"X-Audit", "test"}, 202},
	} {
		var res *http.Response
		var content []byte
		eventually.True(t, c.target, func() bool { // 429 a moment after the last one
			res, content = c.send(t)
			return res.StatusCode == c.status
		})
		d.verify(t, c, res, content)
	}

	rare := regexp.MustCompile(` 500$| 429$|^POST /import (400|503)$|^POST /audit/snapshot 503$`)
	for _, answer := range d.unseen() {
		if !rare.MatchString(answer) {
			t.Errorf("%s is documented, and this test has not seen it", answer)
		}
	}
}

// redirect checks the redirect of a read to a reader.
func (d *document) redirect(t *testing.T, w *servicetest.Instance) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/post?id=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	res.Request = req
	d.answer(t, "GET /post of the writer", res, nil)
	d.seen[fmt.Sprint("GET /post ", res.StatusCode)] = true
}

// stream checks the header and the first event of a stream.
func (d *document) stream(t *testing.T, r *servicetest.Instance, since string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+"/changes?since="+since, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := servicetest.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != "event: set" {
	}
	if lines.Err() != nil {
		t.Errorf("the stream has no event: %v", lines.Err())
	}
	d.answer(t, "stream", res, []byte("event: set\n"))
}

var route = regexp.MustCompile(`http_response_body_bytes_total\{route="(/[^"]*)"\}`)

// The document has the routes of both services, and they have those of the document, with the same methods.
func TestRoutesAreAsDocumented(t *testing.T) {
	d := parse(t)
	b := redistest.StartEmbedded(t)
	for name, service := range map[string]*servicetest.Instance{"writer": startWriter(t, b.Addr()), "reader": startReader(t, b.Addr())} {
		waitReady(t, service)
		_, metrics := service.Send(t, "GET", "/metrics", nil)
		routes := map[string][]string{}
		for _, match := range route.FindAllStringSubmatch(string(metrics), -1) {
			res, body := service.Send(t, "BREW", match[1], nil)
			if res.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("BREW %s: %d %s", match[1], res.StatusCode, body)
			}
			routes[match[1]] = strings.Split(res.Header.Get("Allow"), ", ")
		}
		documented := d.operations(name)
		maps.DeleteFunc(documented, func(_ string, methods []string) bool { return len(methods) == 0 })
		if !maps.EqualFunc(routes, documented, slices.Equal[[]string]) {
			t.Errorf("the %s has the routes\n%v, documented are\n%v", name, routes, documented)
		}
	}
}
