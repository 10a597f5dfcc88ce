package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// await repeats check until it returns nil, for at most limit.
func await(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // keep the last error from before the deadline
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last error: %w", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// Status is the response of a reader's /status.
type Status struct {
	PodID          string `json:"pod_id"`
	Ready          bool   `json:"ready"`
	Degraded       bool   `json:"degraded"`
	Epoch          string `json:"epoch"`
	AppliedVersion uint64 `json:"applied_version"`
	NewestVersion  uint64 `json:"newest_version"`
	Entries        int64  `json:"entries"`
	Bytes          int64  `json:"bytes"`
	Complete       bool   `json:"complete"`
	Synced         bool   `json:"synced"`
}

// ReaderStatus returns the status of a reader.
func ReaderStatus(ctx context.Context, addr string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var s Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return s, err
	}
	return s, call(req, &s)
}

// Await blocks until every reader is ready and in sync with Redis, for at most limit.
func Await(ctx context.Context, limit time.Duration, addrs ...string) error {
	return await(ctx, limit, "the readers to be in sync with Redis", func(ctx context.Context) error {
		for _, addr := range addrs {
			s, err := ReaderStatus(ctx, addr)
			if err != nil {
				return err
			}
			if !s.Ready || !s.Synced || s.Degraded || s.AppliedVersion != s.NewestVersion {
				return fmt.Errorf("the reader at %s: ready %v, synced %v, version %d of %d", addr, s.Ready, s.Synced, s.AppliedVersion, s.NewestVersion)
			}
		}
		return nil
	})
}

// Usage is the CPU time and memory of a process, as its metrics report them.
type Usage struct {
	CPU    time.Duration // since it started
	Memory int64         // resident, bytes
}

// ErrNoUsage reports that a process does not export its CPU time and memory.
var ErrNoUsage = errors.New("the metrics lack process_cpu_seconds_total and process_resident_memory_bytes")

// ProcessUsage reads the metrics at a URL. Processes export their usage on Linux only, where they have /proc.
func ProcessUsage(ctx context.Context, url string) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Usage{}, err
	}
	res, err := Client.Do(req)
	if err != nil {
		return Usage{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Usage{}, fmt.Errorf("%s returned %s", url, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return Usage{}, fmt.Errorf("read %s: %w", url, err)
	}
	cpu, memory := families["process_cpu_seconds_total"].GetMetric(), families["process_resident_memory_bytes"].GetMetric()
	if len(cpu) != 1 || len(memory) != 1 {
		return Usage{}, ErrNoUsage
	}
	return Usage{
		CPU:    time.Duration(cpu[0].GetCounter().GetValue() * float64(time.Second)),
		Memory: int64(memory[0].GetGauge().GetValue()),
	}, nil
}

// Check returns nil when all services are ready, else an error that names one that is not.
func Check(ctx context.Context, a Addresses, r Runtime) error {
	readers, err := r.Readers(ctx)
	if err != nil {
		return err
	}
	if len(readers) == 0 {
		return ErrNotRunning
	}
	writer := a.Writer
	if r.Name() == InDocker {
		writer = a.WriterMetrics
	}
	for name, url := range map[string]string{
		"writer": "http://" + writer + "/ready", "reader-direct": "http://" + a.Direct + "/ready",
		"gateway": "http://" + a.Gateway + "/post?id=benchmark-check",
	} {
		if err := answers(ctx, url); err != nil {
			return fmt.Errorf("%s is not ready (%w): see `make health`", name, err)
		}
	}
	for _, reader := range readers {
		if err := answers(ctx, "http://"+reader.Addr+"/ready"); err != nil {
			return fmt.Errorf("%s is not ready (%w): see `make health`", reader.Name, err)
		}
	}
	return nil
}

// answers returns an error when the URL cannot be read or returns a status of 500 or above.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := Client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode >= 500 {
		return fmt.Errorf("%s returned %s", url, res.Status)
	}
	return nil
}
