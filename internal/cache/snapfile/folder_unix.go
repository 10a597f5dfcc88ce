//go:build unix

package snapfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Lock gives this process the right to write the file path, until release is called or the process ends, and removes
// what a killed process has left beside it. It does not block: the error is ErrLocked if another process has the right.
// The kernel releases the lock of a killed process. The lock file stays, because a process that waited for a deleted
// one would have a lock of its own.
func Lock(path string) (release func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the snapshot file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock the snapshot file: %w", err)
	}
	_ = os.Remove(path + temporary)
	return func() { _ = f.Close() }, nil
}

// Free returns the number of bytes that this process may write to the file system of path.
func Free(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, fmt.Errorf("read the free space of %s: %w", path, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
