package load

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

//go:embed wrk.lua
var script []byte

// Key identifies a post to request.
type Key struct {
	Rank int
	ID   string
}

// Wrk runs wrk with a list of posts to request.
type Wrk struct {
	dir     string
	sampled []Key
	check   CheckFunc
	counts  *Counts
}

// ListLength is the number of ids that wrk cycles through.
const ListLength = 1 << 16

// NewWrk returns a wrk that requests the posts of keys, while the client that checks bodies requests those of
// sampled. Close deletes wrk's files.
func NewWrk(keys, sampled []Key, check CheckFunc, counts *Counts) (*Wrk, error) {
	dir, err := os.MkdirTemp("", "benchmark-wrk-")
	if err != nil {
		return nil, fmt.Errorf("create a folder for wrk: %w", err)
	}
	w := &Wrk{dir: dir, sampled: sampled, check: check, counts: counts}
	var ids bytes.Buffer
	for _, key := range keys {
		ids.WriteString(key.ID)
		ids.WriteByte('\n')
	}
	for name, content := range map[string][]byte{"wrk.lua": script, "ids": ids.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			w.Close()
			return nil, fmt.Errorf("write a file for wrk: %w", err)
		}
	}
	return w, nil
}

// Close deletes wrk's files.
func (w *Wrk) Close() { _ = os.RemoveAll(w.dir) }

// Closed describes a closed loop: each connection sends the next requests when the previous ones are answered.
type Closed struct {
	Addr, Path  string
	Header      string // a header line for every request, or ""
	Connections int
	Threads     int
	Depth       int // requests in flight on each connection
	Duration    time.Duration
	Check       CheckFunc     // nil means the check that NewWrk was given
	Pause       time.Duration // time between two requests of the client that checks bodies; 0 means 1 ms
}

// ClosedResult contains the measurements of wrk and of the client that checks bodies.
type ClosedResult struct {
	Requests int64         `json:"requests"`
	Seconds  float64       `json:"seconds"`
	Bytes    int64         `json:"bytes"`
	Socket   int64         `json:"socket"` // failed connections and timeouts
	Status   int64         `json:"status"` // answers with a status of 400 or above
	CPU      time.Duration // CPU time of wrk
	// Latencies are the sorted latencies of the client that checks bodies: single requests to a busy server.
	Latencies []time.Duration
}

// Rate returns the requests per second.
func (r ClosedResult) Rate() float64 { return float64(r.Requests) / r.Seconds }

// Args returns wrk's arguments.
func (c Closed) Args(script string) []string {
	args := []string{"-t", strconv.Itoa(c.Threads), "-c", strconv.Itoa(c.Connections), "-d", strconv.FormatFloat(c.Duration.Seconds(), 'f', -1, 64) + "s"}
	if c.Header != "" {
		args = append(args, "-H", c.Header)
	}
	return append(args, "-s", script, "http://"+c.Addr+c.Path)
}

// Run runs wrk and, at the same time, a client that checks bodies. A wrong answer is a *WrongError. wrk takes
// whole seconds, so Duration is rounded up.
func (w *Wrk) Run(ctx context.Context, c Closed) (ClosedResult, error) {
	var result ClosedResult
	c.Duration = max((c.Duration + time.Second - 1).Truncate(time.Second), time.Second)
	check := c.Check
	if check == nil {
		check = w.check
	}
	var latencies []time.Duration
	sample := func(ctx context.Context) (err error) {
		header := c.Header
		if header != "" {
			header += "\r\n"
		}
		latencies, err = Sample{c.Addr, c.Path, header, w.sampled, check, cmp.Or(c.Pause, time.Millisecond)}.Run(ctx, w.counts)
		return err
	}
	err := alongside(ctx, sample, func(ctx context.Context) error {
		var err error
		result, err = w.run(ctx, c)
		return err
	})
	slices.Sort(latencies)
	result.Latencies = latencies
	return result, err
}

func (w *Wrk) run(ctx context.Context, c Closed) (ClosedResult, error) {
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, c.Duration+20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wrk", c.Args(filepath.Join(w.dir, "wrk.lua"))...)
	cmd.Env = append(os.Environ(), "BENCH_IDS="+filepath.Join(w.dir, "ids"), "BENCH_PATH="+c.Path, "BENCH_DEPTH="+strconv.Itoa(max(c.Depth, 1)))
	cmd.Stdout, cmd.Stderr = &out, &errs
	// A separate process group, so that Ctrl-C in the terminal ends wrk through ctx and not directly.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ClosedResult{}, fmt.Errorf("wrk: %w", context.Cause(ctx))
		}
		return ClosedResult{}, fmt.Errorf("wrk: %w: %s", err, bytes.TrimSpace(append(out.Bytes(), errs.Bytes()...)))
	}
	_, line, found := bytes.Cut(out.Bytes(), []byte("\nRESULT "))
	var r ClosedResult
	if !found || json.Unmarshal(line, &r) != nil || r.Requests == 0 || r.Seconds == 0 {
		return ClosedResult{}, fmt.Errorf("wrk measured nothing: %s", bytes.TrimSpace(append(out.Bytes(), errs.Bytes()...)))
	}
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	w.counts.Statuses.Add(r.Requests)
	if r.Socket > 0 || r.Status > 0 {
		return r, Failed("%d of %d answers from http://%s%s had a status of 400 or above, %d connections failed", r.Status, r.Requests, c.Addr, c.Path, r.Socket)
	}
	return r, nil
}
