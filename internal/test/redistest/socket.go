package redistest

import (
	"os"
	"path/filepath"
	"testing"
)

// maxSocketPath is the longest path that fits the kernel's socket address: 108
// bytes on Linux and 104 on macOS, the final zero included.
const maxSocketPath = 103

// Socket returns the path of the server's Unix socket, or "" without UnixSocket.
func (s *Server) Socket() string { return s.socket }

// socketPath returns the path for a Unix socket. It does not use t.TempDir, whose path contains the test's
// name and may be too long.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatalf("create a directory for the Unix socket: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	if len(path) > maxSocketPath {
		t.Fatalf("the path %s of the Unix socket is longer than %d bytes: set TMPDIR to a shorter directory", path, maxSocketPath)
	}
	return path
}
