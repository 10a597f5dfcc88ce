package supervisor

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// maxLogBytes bounds a log file; one old file of the same size is kept beside it.
const maxLogBytes = 10 << 20

// logFile is an append-only file of bounded size. Only one goroutine writes to it.
type logFile struct {
	path string
	max  int64    // size at which the file is rotated, in bytes
	file *os.File // at path, unless it was removed or a rotation failed halfway
	size int64    // size of file, in bytes
}

func openLog(path string, limit int64) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	return &logFile{path: path, max: limit, file: f, size: info.Size()}, nil
}

// OpenOwnLog opens the file to which a supervisor in the background writes its own output, and returns its size. The
// supervisor writes little, so the file is rotated only here, when it is more than half full.
func OpenOwnLog(path string) (file *os.File, size int64, err error) {
	log, err := openLog(path, maxLogBytes)
	if err != nil {
		return nil, 0, err
	}
	if log.size > maxLogBytes/2 {
		if err := log.rotate(); err != nil {
			log.Close()
			return nil, 0, err
		}
	}
	return log.file, log.size, nil
}

// Write appends p. If the file was removed, it opens a new one. While the rotation fails, for instance for lack of
// file descriptors, each write retries it; meanwhile the file grows to twice its limit, and further lines are
// lost.
func (l *logFile) Write(p []byte) (int, error) {
	if l.size+int64(len(p)) > l.max || l.removed() {
		if err := l.rotate(); err != nil && l.size+int64(len(p)) > 2*l.max {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// rotate renames the file, replacing the old file before it, and opens a new one. After an error l still writes
// to its open file. A missing file is no error: it was removed, or an earlier rotation renamed it and failed to
// open the next one.
func (l *logFile) rotate() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	next, err := openLog(l.path, l.max)
	if err != nil {
		return err
	}
	l.file.Close()
	*l = *next
	return nil
}

// removed reports whether the open file has no name any more.
func (l *logFile) removed() bool {
	info, err := l.file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

func (l *logFile) Close() error { return l.file.Close() }

// copyLines copies a child's output line by line, each with prefix, to log and, if it is notable, to terminal,
// which must not block. It returns when every process that holds the output has ended. last is the last line
// with an error, else the last line.
func copyLines(r io.Reader, prefix string, log, terminal io.Writer, notable func(line string) bool) (last string) {
	br := bufio.NewReaderSize(r, 64<<10) // longer lines are split
	var failure string
	for {
		piece, err := br.ReadSlice('\n')
		if text := strings.TrimRight(string(piece), "\r\n"); text != "" {
			line := prefix + text + "\n"
			_, _ = io.WriteString(log, line) // a full disk must not stop the child
			if notable(text) {
				_, _ = io.WriteString(terminal, line)
			}
			last = text
			if strings.HasPrefix(text, "error: ") || strings.HasPrefix(text, "panic: ") {
				failure = strings.TrimPrefix(text, "error: ")
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return cmp.Or(failure, last)
		}
	}
}
