package stack

import (
	"fmt"
	"os"
	"strings"
)

// nodesFile is the file in the run folder from which the gateway reads its nodes, one host:port a
// line. It is re-read twice a second.
const nodesFile = "readers"

// writeNodes replaces the file in one step, so that the gateway never reads half of it.
func writeNodes(path string, addresses []string) error {
	var b strings.Builder
	for _, a := range addresses {
		b.WriteString(a)
		b.WriteByte('\n')
	}
	if err := replaceFile(path, b.String()); err != nil {
		return fmt.Errorf("write the gateway's nodes: %w", err)
	}
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path, content string) error {
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
