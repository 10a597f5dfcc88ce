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

// maxNodesFile is the maximum size of the nodes file, in bytes.
const maxNodesFile = 64 << 10

// readNodes reads a nodes file: one host:port per line. Empty lines and lines that start with # are ignored.
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

// nodesFile polls a nodes file for changes. It compares the content rather than the modification time, which can be the
// same after two quick changes.
type nodesFile struct {
	path   string
	log    *slog.Logger
	set    func([]string)
	list   []string // last valid list
	broken string   // error that was logged last; "" while the file is valid
}

// reload applies the list in the file. If the file is invalid, the last valid list stays in use and the error is logged
// once.
func (f *nodesFile) reload() {
	list, err := readNodes(f.path)
	if err != nil {
		if f.broken != err.Error() {
			f.broken = err.Error()
			f.log.Warn("nodes file is invalid; keeping the last valid list", "err", err)
		}
		return
	}
	if f.broken != "" {
		f.broken = ""
		f.log.Info("nodes file is valid again", "path", f.path)
	}
	if !slices.Equal(list, f.list) {
		f.list = list
		f.set(list)
	}
}

// follow reloads the file once per interval until ctx is done.
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
