package writer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/servicetest"
)

// instance is a writer that runs in the process of the test.
type instance struct{ *servicetest.Instance }

// start starts a writer on a free port. It stops when the test ends.
func start(t testing.TB, redisAddr string, options ...func(*Config)) *instance {
	t.Helper()
	cfg := Config{
		Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{redisAddr}}, Drain: -1},
		// A long timeout, so that tests without faults do not fail on a busy machine.
		Timeout: 20 * time.Second,
	}
	for _, o := range options {
		o(&cfg)
	}
	return &instance{servicetest.Start(t, func(ctx context.Context, listening func(string)) error {
		cfg.Listening = listening
		return Run(ctx, cfg)
	})}
}

// defaultTimeout selects the timeout that writers have in production.
func defaultTimeout(c *Config) { c.Timeout = 0 }

type response struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. header alternates names and values.
func (w *instance) do(t testing.TB, method, target, body string, header ...string) response {
	t.Helper()
	return w.send(t, method, target, strings.NewReader(body), header...)
}

func (w *instance) send(t testing.TB, method, target string, body io.Reader, header ...string) response {
	t.Helper()
	res, answer := w.Send(t, method, target, body, header...)
	return response{res.StatusCode, res.Header, answer}
}

// waitForNextTimestamp waits for the next millisecond, so that the next post has another timestamp.
func waitForNextTimestamp(t testing.TB) {
	t.Helper()
	now := time.Now().UnixMilli()
	eventually.True(t, "next millisecond", func() bool { return time.Now().UnixMilli() > now })
}

// postKey returns the key of a post in Redis. Of the writer's requests to Redis, only writes of the post contain it.
func postKey(id string) string { return "{posts:0}:p:" + id }

// stored returns the JSON of a post in Redis, without the frame, or "" if there is no such post.
func stored(t testing.TB, db *redis.Client, id string) string {
	t.Helper()
	text, err := db.Get(context.WithoutCancel(t.Context()), postKey(id)).Result()
	if errors.Is(err, redis.Nil) {
		return ""
	}
	begin := strings.Index(text, id+`{"id":`)
	if err != nil || begin < 0 {
		t.Fatalf("GET %s: %q, %v", id, text, err)
	}
	return text[begin+len(id):]
}

// version returns the number of the newest write.
func version(t testing.TB, db *redis.Client) string {
	t.Helper()
	text, err := db.Get(context.WithoutCancel(t.Context()), "{posts:0}:seq").Result()
	if errors.Is(err, redis.Nil) {
		return "0"
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wantProblem checks that an answer is a problem document for field, and returns it.
func wantProblem(t *testing.T, res response, status int, field string) httpkit.Problem {
	t.Helper()
	var p httpkit.Problem
	if err := json.Unmarshal(res.body, &p); err != nil {
		t.Errorf("status %d, body %q: %v", res.status, res.body, err)
	}
	if res.status != status || p.Status != status || p.Field != field || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("status %d, %s, want %d and field %q", res.status, res.body, status, field)
	}
	for name, want := range map[string]string{
		"Content-Type":   "application/problem+json",
		"Content-Length": fmt.Sprint(len(res.body)),
		"ETag":           "",
		"X-Version":      "",
		"Location":       "",
	} {
		if got := res.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	return p
}

// wantSuccess checks that an answer reports a successful write and agrees with Redis. It returns the ETag of the post.
func wantSuccess(t *testing.T, db *redis.Client, res response, status int, id string) (etag string) {
	t.Helper()
	var s success
	if err := json.Unmarshal(res.body, &s); err != nil {
		t.Errorf("status %d, body %q: %v", res.status, res.body, err)
	}
	took, err := time.ParseDuration(s.PublishDuration)
	if res.status != status || s.Status != "success" || s.PostID != id || err != nil || took <= 0 {
		t.Errorf("status %d, %s, want %d for %q", res.status, res.body, status, id)
	}
	etag = res.header.Get("ETag")
	token, err := protocol.ParseToken(res.header.Get("X-Version"))
	if etag != `"`+s.Hash+`"` || err != nil || token.Version != s.Version || res.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v do not match the body %s", res.header, res.body)
	}
	if have := stored(t, db, id); post.ETag(have) != etag || post.Verify([]byte(have)) != nil {
		t.Errorf("Redis has %.100q, but the answer has ETag %s", have, etag)
	}
	return etag
}
