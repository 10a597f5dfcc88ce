package auditor

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/replica"
)

// reader is an answer of a reader, or its failure.
type reader struct {
	addr    string
	name    string
	digests []replica.Digest
	err     error
}

// addresses returns the addresses of all readers, each once. A name that cannot be resolved stands for itself, so that
// its reader counts as one that does not answer.
func (a *auditor) addresses(ctx context.Context) (addrs []string) {
	listed := slices.Clone(a.cfg.Readers)
	if a.cfg.ReadersFile != "" {
		content, err := os.ReadFile(a.cfg.ReadersFile)
		if err != nil {
			a.unlisted.Log(a.log.Warn, time.Now(), "cannot read the list of readers; comparing the others", "err", err)
		}
		listed = append(listed, strings.Fields(string(content))...)
	}
	for _, addr := range listed {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil || len(found) == 0 {
			found = []string{host}
		}
		for _, ip := range found {
			addrs = append(addrs, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// ask asks all readers at the same time.
func (a *auditor) ask(ctx context.Context) []reader {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addrs := a.addresses(ctx)
	readers := make([]reader, len(addrs))
	var asking sync.WaitGroup
	for i, addr := range addrs {
		asking.Go(func() {
			r := reader{addr: addr}
			r.name, r.digests, r.err = a.client.Report(ctx, addr)
			readers[i] = r
		})
	}
	asking.Wait()
	seen := map[string]bool{}
	for i := range readers {
		r := &readers[i]
		if r.name == "" || seen[r.name] {
			r.name += r.addr // does not answer, or two readers have one name
		}
		seen[r.name] = true
	}
	return readers
}

// remote is a reader that can be inspected.
type remote struct {
	client *audit.Client
	addr   string
}

func (r remote) Buckets(ctx context.Context) (audit.Part, error) {
	return retry(ctx, func() (audit.Part, error) { return r.client.Buckets(ctx, r.addr) })
}

func (r remote) Keys(ctx context.Context, buckets []int) (audit.Part, error) {
	return retry(ctx, func() (audit.Part, error) { return r.client.Keys(ctx, r.addr, buckets) })
}

// local is the auditor's own replica.
type local struct{ replica *replica.Replica }

func (l local) Buckets(ctx context.Context) (audit.Part, error) {
	return retry(ctx, func() (p audit.Part, err error) {
		p.Head, p.Buckets, err = l.replica.Buckets(ctx)
		return p, err
	})
}

func (l local) Keys(ctx context.Context, buckets []int) (audit.Part, error) {
	return retry(ctx, func() (p audit.Part, err error) {
		var all bool
		p.Head, p.Items, all, err = l.replica.Keys(ctx, buckets)
		p.Partial = !all
		return p, err
	})
}

// retry repeats an inspection that fails, because a copy allows one at a time and none while it catches up.
func retry(ctx context.Context, inspect func() (audit.Part, error)) (audit.Part, error) {
	for {
		p, err := inspect()
		if err == nil {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return p, err
		case <-time.After(inspectPause):
		}
	}
}
