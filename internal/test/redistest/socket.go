package redistest

import (
	"os"
	"path/filepath"
	"testing"
)

// maxSocketPath is the longest path that fits the kernel's socket address: 108
// bytes on Linux and 104 on macOS, the final zero included.
const maxSocketPath = 103

// Socket is the path of the server's Unix socket, empty without UnixSocket.
func (s *Server) Socket() string { return s.socket }

// socketPath is in a folder of its own with a short name: that of t.TempDir
// holds the test's name and can be too long.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatalf("make a folder for the Unix socket: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	if len(path) > maxSocketPath {
		t.Fatalf("the Unix socket's path %s has over %d bytes: set TMPDIR to a shorter folder", path, maxSocketPath)
	}
	return path
}
