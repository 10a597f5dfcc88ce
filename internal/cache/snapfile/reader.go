package snapfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"
)

// Reader reads a file. Its methods must be called by one goroutine, or one after the other.
type Reader struct {
	Header  Header
	Summary Summary

	source io.ReaderAt
	close  func() error
	end    trailer
	first  int64 // position of the first block
}

// Open opens a file and reads both of its ends, so that a file that is not complete is refused before any entry is
// read. The error is fs.ErrNotExist if there is no file, and ErrDamaged if it is damaged. The file may be replaced
// meanwhile: the Reader reads the one that it has opened.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the snapshot file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the snapshot file: %w", err)
	}
	r, err := newReader(f, info.Size())
	if err != nil {
		f.Close()
		return nil, err
	}
	r.close = f.Close
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.close() }

func newReader(source io.ReaderAt, size int64) (*Reader, error) {
	r := &Reader{source: source}
	start := make([]byte, len(magic)+4)
	if err := r.readAt(start, 0); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(start[len(magic):])
	if string(start[:len(magic)]) != magic || length > maxHeader {
		return nil, fmt.Errorf("%w: it does not begin as one of this version", ErrDamaged)
	}
	header := make([]byte, len(start)+int(length)+4)
	if err := r.readAt(header, 0); err != nil {
		return nil, err
	}
	sum := len(header) - 4
	if binary.BigEndian.Uint32(header[sum:]) != checksum(0, 0, header[:sum]) {
		return nil, fmt.Errorf("%w: its header does not match the checksum", ErrDamaged)
	}
	id, err := r.Header.decode(header[len(start):sum])
	if err != nil {
		return nil, err
	}
	r.first = int64(len(header))
	end := make([]byte, trailerSize)
	position := size - trailerSize
	if position < r.first {
		return nil, fmt.Errorf("%w: it has no end", ErrDamaged)
	}
	if err := r.readAt(end, position); err != nil {
		return nil, err
	}
	if err := r.end.decode(end, id, position); err != nil {
		return nil, err
	}
	r.Summary = Summary{Ahead: r.end.ahead, Complete: r.end.complete, Entries: r.end.entries, Size: size}
	return r, nil
}

// readAt fills b from position.
func (r *Reader) readAt(b []byte, position int64) error {
	n, err := r.source.ReadAt(b, position)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends within %d bytes from %d", ErrDamaged, len(b), position)
	}
	return fmt.Errorf("read the snapshot file: %w", err)
}

// block is a block whose checksum has been verified.
type block struct {
	bytes   []byte // the entries refer to it
	entries []Entry
	err     error
}

// buffered is the number of blocks that are read before they are used.
const buffered = 4

// Read calls use with all entries, block by block in the order of the file, and reads and verifies the next blocks
// meanwhile on another goroutine. The entries, with their keys and values, are valid until use returns. Read ends with
// the first error of use or of the file, or when ctx is done. Entries that use has received until then are those that
// were saved, but not all of them.
func (r *Reader) Read(ctx context.Context, use func([]Entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	free, read := make(chan *block, buffered), make(chan *block, buffered)
	for range buffered {
		free <- new(block)
	}
	go func() {
		defer close(read)
		r.readBlocks(ctx, free, read)
	}()
	defer func() {
		cancel()
		for range read { // wait until the goroutine has ended
		}
	}()
	for b := range read {
		if b.err != nil {
			return b.err
		}
		if err := use(b.entries); err != nil {
			return err
		}
		free <- b // never blocks: it has room for all blocks
	}
	return ctx.Err()
}

// readBlocks sends all blocks, or the first error.
func (r *Reader) readBlocks(ctx context.Context, free <-chan *block, read chan<- *block) {
	position, entries := r.first, uint64(0)
	for number := range r.end.blocks {
		var b *block
		select {
		case b = <-free:
		case <-ctx.Done():
			return
		}
		position, b.err = r.readBlock(b, number, position)
		entries += uint64(len(b.entries))
		read <- b // never blocks
		if b.err != nil {
			return
		}
	}
	if position != r.end.position || entries != r.end.entries {
		read <- &block{err: fmt.Errorf("%w: it has %d entries and not %d", ErrDamaged, entries, r.end.entries)}
	}
}

// readBlock reads a block at position and returns the position after it.
func (r *Reader) readBlock(b *block, number uint64, position int64) (int64, error) {
	b.entries = b.entries[:0]
	var header [blockHeader]byte
	if err := r.readAt(header[:], position); err != nil {
		return 0, err
	}
	size := int64(binary.BigEndian.Uint32(header[:]))
	position += blockHeader
	if size == 0 || size > maxBlockSize || position+size > r.end.position {
		return 0, fmt.Errorf("%w: block %d has %d bytes", ErrDamaged, number, size)
	}
	if int64(cap(b.bytes)) < size || cap(b.bytes) > 4*blockSize {
		b.bytes = make([]byte, size, max(size, blockSize+blockSize/8))
	}
	b.bytes = b.bytes[:size]
	if err := r.readAt(b.bytes, position); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(header[4:]) != checksum(r.end.id, number, b.bytes) {
		return 0, fmt.Errorf("%w: block %d does not match its checksum", ErrDamaged, number)
	}
	if !b.decode() {
		return 0, fmt.Errorf("%w: an entry of block %d is cut", ErrDamaged, number)
	}
	return position + size, nil
}

// decode decodes the entries. They refer to the bytes of b, which do not change while the entries are in use.
func (b *block) decode() (ok bool) {
	for rest := b.bytes; len(rest) > 0; {
		if len(rest) < entryHeader {
			return false
		}
		e := Entry{Version: binary.BigEndian.Uint64(rest)}
		key, value := int64(binary.BigEndian.Uint16(rest[8:])), int64(binary.BigEndian.Uint32(rest[10:]))
		rest = rest[entryHeader:]
		if int64(len(rest)) < key+value {
			return false
		}
		e.Key, e.Value = text(rest[:key]), text(rest[key:key+value])
		b.entries = append(b.entries, e)
		rest = rest[key+value:]
	}
	return true
}

func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
