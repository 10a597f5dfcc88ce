package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/writer"
)

// Services for tests over HTTP, in the test's process or in processes of their own.

// serve runs a service until the test ends or stop is called, and returns its address.
func serve(t testing.TB, run func(ctx context.Context, c daemon.Common) error) (addr string, stop func()) {
	t.Helper()
	listening, ended := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- run(ctx, daemon.Common{Host: "127.0.0.1", Listening: func(addr string) { listening <- addr }})
	}()
	select {
	case addr = <-listening:
	case err := <-ended:
		cancel()
		t.Fatalf("the service ended: %v", err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the service ended: %v", err)
		}
	})
	t.Cleanup(stop)
	return addr, stop
}

func serveWriter(t testing.TB, redisAddr string) (addr string) {
	t.Helper()
	addr, _ = serve(t, func(ctx context.Context, c daemon.Common) error {
		return writer.Run(ctx, writer.Config{Data: redisconfig.Data{Common: c, Redis: redisconfig.Redis{Addr: []string{redisAddr}}, Drain: -1}})
	})
	return addr
}

// serveReader starts a reader, waits until it is ready and returns its address.
func serveReader(t testing.TB, redisAddr, podID string) (addr string) {
	t.Helper()
	addr, _ = serve(t, func(ctx context.Context, c daemon.Common) error {
		return reader.Run(ctx, reader.Config{Data: redisconfig.Data{Common: c, Redis: redisconfig.Redis{Addr: []string{redisAddr}}, Drain: -1}, PodID: podID})
	})
	waitReady(t, addr)
	return addr
}

func serveGateway(t testing.TB, readers ...string) (addr string) {
	t.Helper()
	addr, _ = serve(t, func(ctx context.Context, c daemon.Common) error {
		return gateway.Run(ctx, gateway.Config{Common: c, Readers: readers})
	})
	return addr
}

func waitReady(t testing.TB, addr string) {
	t.Helper()
	eventually.Nil(t, func() error {
		res, err := get(addr, "/ready")
		if err != nil || res.status != http.StatusOK {
			return fmt.Errorf("/ready answers %d %s (%v)", res.status, res.body, err)
		}
		return nil
	})
}

type response struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

var httpClient = &http.Client{
	Timeout:   10 * time.Second,
	Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
}

// do sends a request; header alternates names and values.
func do(method, addr, target string, body []byte, header ...string) (response, error) {
	req, err := http.NewRequest(method, "http://"+addr+target, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	began := time.Now()
	res, err := httpClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, answer, time.Since(began)}, err
}

func get(addr, target string, header ...string) (response, error) {
	return do(http.MethodGet, addr, target, nil, header...)
}

func target(id string) string { return "/post?id=" + url.QueryEscape(id) }

// writeOfA is contained only in requests to Redis that write the post a.
const writeOfA = ":p:a\r\n"

// newPost is the body of POST /create, and a line of POST /import.
type newPost struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Content string `json:"content"`
}

func create(addr string, p newPost) (response, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return response{}, err
	}
	return do(http.MethodPost, addr, "/create", body, "Content-Type", "application/json")
}

// version returns the version token of a response.
func (r *response) version() (protocol.Token, error) {
	return protocol.ParseToken(r.header.Get("X-Version"))
}

// postContent returns the content of a post.
func postContent(body string) []byte {
	var p newPost
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		return []byte(err.Error())
	}
	return []byte(p.Content)
}

// createBy sends POST /create to a writer and records it. Every failure counts as an unknown outcome.
func (w *world) createBy(addr, id string) (response, error) {
	content := w.value(id, 0)
	w.keys.Store(id, true)
	record := w.history.Write(id, content)
	res, err := create(addr, newPost{ID: id, Title: "title", Content: string(content)})
	if err == nil && res.status != http.StatusCreated && res.status != http.StatusOK {
		err = fmt.Errorf("POST /create answers %d %s", res.status, res.body)
	}
	token, perr := res.version()
	if err == nil {
		err = perr
	}
	if err != nil {
		w.failed.Add(1)
		record.Unknown()
		return res, err
	}
	w.acked.Add(1)
	record.Ack(token.Epoch, token.Version)
	return res, nil
}

// process is a service in a child process.
type process struct {
	addr   string
	cmd    *exec.Cmd
	exited chan time.Time // receives the time of the exit, then is closed
}

// startProcess starts this test binary as a service on a free port, and kills it when the test ends.
func startProcess(t testing.TB, role string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "HOST=127.0.0.1", "PORT=0",
		"GORACE=atexit_sleep_ms=0") // by default the race detector delays an exit by a second
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = t.Output()
	if _, err := cmd.StdinPipe(); err != nil { // closed when this process ends
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a %s: %v", role, err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	p := &process{addr: strings.TrimSpace(line), cmd: cmd, exited: make(chan time.Time, 1)}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // ProcessState has the exit code
		p.exited <- time.Now()
	}()
	t.Cleanup(p.kill)
	if err != nil {
		t.Fatalf("a %s did not print its address: %v", role, err)
	}
	return p
}

// kill kills the process with SIGKILL and blocks until it has exited.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has exited
	for range p.exited {
	}
}

func (p *process) terminate(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
