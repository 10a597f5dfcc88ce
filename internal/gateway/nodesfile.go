package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// maxNodesFile bounds the nodes file, in bytes.
const maxNodesFile = 64 << 10

// readNodes reads a nodes file: one host:port a line; empty lines and those that start with # do
// not count.
func readNodes(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNodesFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxNodesFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxNodesFile)
	}
	var addrs []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			addrs = append(addrs, line)
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New(path + " lists no reader")
	}
	if err := validNodes(addrs); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return addrs, nil
}

// nodesFile follows a nodes file. It reads the file each time rather than its modification time,
// which two quick changes can share.
type nodesFile struct {
	path   string
	log    *slog.Logger
	set    func([]string)
	list   []string // the last good list
	broken string   // what was logged about the file as it is; "" when it is good
}

// reload takes over the file's list. A file that cannot be used keeps the last good one and is
// logged once.
func (f *nodesFile) reload() {
	list, err := readNodes(f.path)
	if err != nil {
		if f.broken != err.Error() {
			f.broken = err.Error()
			f.log.Warn("nodes file not used, the last good list stays", "err", err)
		}
		return
	}
	if f.broken != "" {
		f.broken = ""
		f.log.Info("nodes file is good again", "path", f.path)
	}
	if !slices.Equal(list, f.list) {
		f.list = list
		f.set(list)
	}
}

// follow reloads at each interval until ctx is done.
func (f *nodesFile) follow(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.reload()
		}
	}
}
