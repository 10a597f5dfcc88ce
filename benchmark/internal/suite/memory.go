package suite

import (
	"context"
	"errors"
	"sync"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
)

// sampleEvery is the interval at which the memory of the readers is sampled during the import.
const sampleEvery = 250 * time.Millisecond

// memory measures the memory of the readers before, during and after the import of the posts, and their CPU
// time for the import and for reads.
func (s *suite) memory(ctx context.Context) error {
	readers, err := s.runtime.Readers(ctx)
	if err != nil {
		return err
	}
	readers = append(readers, target.Reader{Name: "reader-direct", Addr: s.addresses.Direct})
	m := &report.Memory{Posts: s.posts, Readers: make([]report.ReaderMemory, len(readers))}
	usage := func(ctx context.Context, each func(*report.ReaderMemory, target.Usage)) error {
		for i, r := range readers {
			u, err := target.ProcessUsage(ctx, "http://"+r.Addr+"/metrics")
			if err != nil {
				return err
			}
			each(&m.Readers[i], u)
		}
		return nil
	}
	for i, r := range readers {
		m.Readers[i].Name = r.Name
	}

	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var sampler sync.WaitGroup
	took, err := s.ensurePosts(ctx, func(ctx context.Context) error {
		m.Imported = true
		for i, r := range readers {
			status, err := target.ReaderStatus(ctx, r.Addr)
			if err != nil {
				return err
			}
			m.Readers[i].EntriesBefore = status.Entries
		}
		err := usage(ctx, func(r *report.ReaderMemory, u target.Usage) { r.Before, r.CPU = u.Memory, -u.CPU.Seconds() })
		sampler.Go(func() {
			tick := time.NewTicker(sampleEvery)
			defer tick.Stop()
			for {
				select {
				case <-sampling.Done():
					return
				case <-tick.C: // samples that fail are skipped
					_ = usage(sampling, func(r *report.ReaderMemory, u target.Usage) { r.Peak = max(r.Peak, u.Memory) })
				}
			}
		})
		return err
	})
	stop()
	sampler.Wait()
	if errors.Is(err, target.ErrNoUsage) {
		s.note("The memory and CPU time of the readers are unknown: readers export them on Linux only.")
		_, err = s.ensurePosts(ctx, nil)
		return err
	} else if err != nil {
		return err
	}
	m.Seconds = took.Seconds()
	err = usage(ctx, func(r *report.ReaderMemory, u target.Usage) {
		r.After, r.Peak = u.Memory, max(r.Peak, u.Memory)
		if m.Imported {
			r.CPU += u.CPU.Seconds()
		}
	})
	if err != nil {
		return err
	}
	for i, r := range readers {
		status, err := target.ReaderStatus(ctx, r.Addr)
		if err != nil {
			return err
		}
		m.Readers[i].Entries, m.Readers[i].Bytes, m.Readers[i].Complete = status.Entries, status.Bytes, status.Complete
	}
	if !m.Imported {
		s.note("The posts existed already, so the memory of the readers without them is unknown: `run_benchmark.sh --remove` deletes the posts.")
	}
	if err := s.traffic(ctx, m, usage); err != nil {
		return err
	}
	s.report.Memory = m
	last := m.Readers[len(m.Readers)-1]
	s.progress.Say("a reader with %d entries: %.0f MB resident", last.Entries, float64(last.After)/1e6)
	return nil
}

// traffic measures the CPU time of each reader during a closed loop through the gateway.
func (s *suite) traffic(ctx context.Context, m *report.Memory, usage func(context.Context, func(*report.ReaderMemory, target.Usage)) error) error {
	s.progress.Step("CPU of the readers under load", s.round)
	if err := usage(ctx, func(r *report.ReaderMemory, u target.Usage) { r.Traffic = -u.CPU.Seconds() }); err != nil {
		return err
	}
	began := time.Now()
	if _, err := s.wrk.Run(ctx, s.closed(s.addresses.Gateway, "/post", 1)); err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	return usage(ctx, func(r *report.ReaderMemory, u target.Usage) { r.Traffic = (r.Traffic + u.CPU.Seconds()) / seconds })
}

func (s *suite) closed(addr, path string, depth int) load.Closed {
	return load.Closed{Addr: addr, Path: path, Depth: depth, Connections: s.connections, Threads: s.threads, Duration: s.round}
}
