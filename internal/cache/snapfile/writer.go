package snapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// temporary is appended to the name of a file that is being written.
const temporary = ".tmp"

// ErrTooLarge reports entries that exceed the limit of the file.
var ErrTooLarge = errors.New("the entries exceed the limit of the snapshot file")

// ErrLocked reports that another process is writing the file.
var ErrLocked = errors.New("another process is writing the snapshot file")

// Writer writes a file. Its methods must be called by one goroutine, or one after the other. The caller ends it with
// Commit or Abort.
type Writer struct {
	path  string
	file  output
	limit int64 // size of the file, in bytes

	renamed bool

	block []byte // header and entries of the current block
	size  int64  // bytes written
	end   trailer
}

// output is the part of an *os.File that a Writer uses.
type output interface {
	io.WriteCloser
	Sync() error
}

// Create begins a file that replaces path on Commit. It overwrites what an interrupted Writer of path has left. The
// file never has more than limit bytes.
func Create(path string, h Header, limit int64) (*Writer, error) {
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create a snapshot file: %w", err)
	}
	w := newWriter(path, f, limit)
	if err := w.begin(h); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

func newWriter(path string, file output, limit int64) *Writer {
	w := &Writer{path: path, file: file, limit: limit, end: trailer{id: rand.Uint64()}}
	w.block = make([]byte, blockHeader, blockHeader+blockSize+blockSize/8)
	return w
}

func (w *Writer) begin(h Header) error {
	b, err := h.encode(w.end.id)
	if err != nil {
		return err
	}
	return w.write(b)
}

// Add adds an entry, whose key may have up to 65,535 bytes and whose value 16 MiB. It blocks while it writes a full
// block, and keeps neither key nor value. After an error, call Abort.
func (w *Writer) Add(key []byte, value string, version uint64) error {
	if len(key) > maxKey || len(value) > maxValue {
		return fmt.Errorf("an entry with a key of %d bytes and a value of %d does not fit into a snapshot file", len(key), len(value))
	}
	w.block = binary.BigEndian.AppendUint64(w.block, version)
	w.block = binary.BigEndian.AppendUint16(w.block, uint16(len(key)))
	w.block = binary.BigEndian.AppendUint32(w.block, uint32(len(value)))
	w.block = append(append(w.block, key...), value...)
	w.end.entries++
	if len(w.block)-blockHeader >= blockSize {
		return w.writeBlock()
	}
	return nil
}

func (w *Writer) writeBlock() error {
	entries := w.block[blockHeader:]
	if len(entries) == 0 {
		return nil
	}
	binary.BigEndian.PutUint32(w.block, uint32(len(entries)))
	binary.BigEndian.PutUint32(w.block[4:], checksum(w.end.id, w.end.blocks, entries))
	w.end.blocks++
	err := w.write(w.block)
	w.block = w.block[:blockHeader]
	if cap(w.block) > 2*blockSize { // it had a large value
		w.block = make([]byte, blockHeader, blockHeader+blockSize+blockSize/8)
	}
	return err
}

func (w *Writer) write(b []byte) error {
	if w.size += int64(len(b)); w.size > w.limit-trailerSize {
		return fmt.Errorf("%w (%d bytes)", ErrTooLarge, w.limit)
	}
	return w.writeAll(b)
}

func (w *Writer) writeAll(b []byte) error {
	if _, err := w.file.Write(b); err != nil {
		return fmt.Errorf("write a snapshot file: %w", err)
	}
	return nil
}

// Size returns the number of bytes that have been written.
func (w *Writer) Size() int64 { return w.size }

// Commit completes the file and replaces the old one by it. When Commit returns nil, the new file is on disk. After an
// error, call Abort: the old file may have been replaced only if its folder could not be written to disk.
func (w *Writer) Commit(ahead Head, complete bool) (Summary, error) {
	if err := w.writeBlock(); err != nil {
		return Summary{}, err
	}
	w.end.position, w.end.ahead, w.end.complete = w.size, ahead, complete
	if err := w.writeAll(w.end.encode()); err != nil {
		return Summary{}, err
	}
	// Before the rename: otherwise a crash of the machine could leave the new name with parts of the data.
	if err := w.file.Sync(); err != nil {
		return Summary{}, fmt.Errorf("write a snapshot file to disk: %w", err)
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return Summary{}, fmt.Errorf("close a snapshot file: %w", err)
	}
	if err := os.Rename(w.path+temporary, w.path); err != nil {
		return Summary{}, fmt.Errorf("replace the snapshot file: %w", err)
	}
	w.renamed = true
	if err := syncFolder(filepath.Dir(w.path)); err != nil {
		return Summary{}, fmt.Errorf("write the folder of the snapshot file to disk: %w", err)
	}
	return Summary{Ahead: ahead, Complete: complete, Entries: w.end.entries, Size: w.size + trailerSize}, nil
}

// Abort removes what has been written. It has no effect after a successful Commit.
func (w *Writer) Abort() {
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
	if !w.renamed {
		_ = os.Remove(w.path + temporary)
	}
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
