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

// await repeats check until it returns nil, for limit at most.
func await(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%v have passed", limit))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // not the error of a check that ran out of time
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w, and still: %w", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// Status is the answer of a reader's /status.
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

// ReaderStatus asks a reader for its status.
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

// Await blocks until every reader is ready and in step with Redis, or for limit.
func Await(ctx context.Context, limit time.Duration, addrs ...string) error {
	return await(ctx, limit, "the readers to be in step with Redis", func(ctx context.Context) error {
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

// Usage is the CPU time and memory of a process, from its own metrics.
type Usage struct {
	CPU    time.Duration // since it started
	Memory int64         // resident, bytes
}

// ErrNoUsage reports that a process does not export its CPU time and memory.
var ErrNoUsage = errors.New("the metrics do not have process_cpu_seconds_total and process_resident_memory_bytes")

// ProcessUsage reads the metrics at a URL. Processes export them on Linux only, because they come from /proc.
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
		return Usage{}, fmt.Errorf("%s answers %s", url, res.Status)
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

// Check returns an error that names a service that is not ready.
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
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}
