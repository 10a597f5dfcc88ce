// Package snapfile stores the entries of a cache in a file, from which the next process starts. It knows neither Redis
// nor the store.
//
// A file is written beside the one that it replaces and renamed when it is complete (writer.go), so a process that is
// killed at any moment leaves the old file or the new one. A reader accepts a file only as a whole: every byte is
// covered by a checksum (reader.go). Processes that share a folder write one after the other (folder.go).
package snapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Layouts, with sizes in bytes; all numbers are big-endian:
//
//	file    = magic (8) + length of the header (4) + header + checksum (4); blocks; trailer
//	header  = id (8) + start head (24) + current, Unix ns (8) + identity length (2) + identity + note length (2) + note
//	block   = length of the entries (4) + checksum (4) + entries
//	entry   = version (8) + key length (2) + value length (4) + key + value
//	trailer = 0 (4) + checksum (4) + id (8) + blocks (8) + entries (8) + position of the trailer (8) + ahead head (24) +
//	          complete (1)
//
// The id is a random number. The checksum of a block or trailer covers the id and the number of the block too, so that
// a block of another file, or in another place, is not accepted.
const (
	magic        = "cachef\x00\x01" // the last byte is the number of the format
	headerFixed  = 8 + headSize + 8 + 2 + 2
	headSize     = 24
	blockHeader  = 8
	entryHeader  = 14
	trailerSize  = blockHeader + 8 + 8 + 8 + 8 + headSize + 1
	maxHeader    = 64 << 10
	blockSize    = 256 << 10 // size from which a block is written
	maxKey       = 1<<16 - 1
	maxValue     = 16 << 20
	maxBlockSize = blockSize + entryHeader + maxKey + maxValue
)

// ErrDamaged reports a file that is not complete, or whose bytes have changed.
var ErrDamaged = errors.New("damaged snapshot file")

// Head is a point in the history of the entries.
type Head struct {
	Epoch, Version, WriteID uint64
}

// Header describes a file before its first entry.
type Header struct {
	Identity string // data set and format of the values; at most 16 KiB
	Note     string // further facts, which this package does not interpret; at most 16 KiB
	// Start is a head at which every entry was in the cache. An entry may be newer: it was read later.
	Start   Head
	Current time.Time // time at which the entries were last known to be current
}

// Summary describes a file after its last entry.
type Summary struct {
	Ahead    Head // no entry is newer than this head
	Complete bool // the file has every entry of the data set, except for changes after Start
	Entries  uint64
	Size     int64 // of the file, in bytes
}

// Entry is a value of a key. A file may have a key more than once; then the last entry counts.
type Entry struct {
	Key, Value string
	Version    uint64
}

var table = crc32.MakeTable(crc32.Castagnoli)

// checksum covers b, at place number in the file id.
func checksum(id, number uint64, b []byte) uint32 {
	var place [16]byte
	binary.BigEndian.PutUint64(place[:], id)
	binary.BigEndian.PutUint64(place[8:], number)
	return crc32.Update(crc32.Checksum(place[:], table), table, b)
}

func appendHead(b []byte, h Head) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Version)
	return binary.BigEndian.AppendUint64(b, h.WriteID)
}

func headOf(b []byte) Head {
	return Head{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
}

// encode returns the header with everything that comes before the blocks.
func (h *Header) encode(id uint64) ([]byte, error) {
	if len(h.Identity) > maxHeader/4 || len(h.Note) > maxHeader/4 {
		return nil, fmt.Errorf("an identity of %d bytes and a note of %d: at most %d are possible", len(h.Identity), len(h.Note), maxHeader/4)
	}
	b := append([]byte(magic), 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, id)
	b = appendHead(b, h.Start)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Current.UnixNano()))
	for _, text := range []string{h.Identity, h.Note} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
	}
	binary.BigEndian.PutUint32(b[len(magic):], uint32(len(b)-len(magic)-4))
	return binary.BigEndian.AppendUint32(b, checksum(0, 0, b)), nil
}

// decode decodes a header without magic, length and checksum.
func (h *Header) decode(b []byte) (id uint64, err error) {
	if len(b) < headerFixed {
		return 0, fmt.Errorf("%w: a header of %d bytes", ErrDamaged, len(b))
	}
	id, h.Start = binary.BigEndian.Uint64(b), headOf(b[8:])
	h.Current = time.Unix(0, int64(binary.BigEndian.Uint64(b[8+headSize:])))
	b = b[8+headSize+8:]
	for _, text := range []*string{&h.Identity, &h.Note} {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return 0, fmt.Errorf("%w: a text of the header is cut", ErrDamaged)
		}
		size := int(binary.BigEndian.Uint16(b))
		*text, b = string(b[2:2+size]), b[2+size:]
	}
	if len(b) > 0 {
		return 0, fmt.Errorf("%w: %d bytes after the header", ErrDamaged, len(b))
	}
	return id, nil
}

// trailer is a decoded trailer.
type trailer struct {
	id, blocks, entries uint64
	position            int64
	ahead               Head
	complete            bool
}

func (t *trailer) encode() []byte {
	b := make([]byte, blockHeader, trailerSize)
	b = binary.BigEndian.AppendUint64(b, t.id)
	b = binary.BigEndian.AppendUint64(b, t.blocks)
	b = binary.BigEndian.AppendUint64(b, t.entries)
	b = binary.BigEndian.AppendUint64(b, uint64(t.position))
	b = appendHead(b, t.ahead)
	if t.complete {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint32(b[4:], checksum(t.id, t.blocks, b[blockHeader:]))
	return b
}

// decode decodes a trailer of the file id at position.
func (t *trailer) decode(b []byte, id uint64, position int64) error {
	*t = trailer{
		id: binary.BigEndian.Uint64(b[8:]), blocks: binary.BigEndian.Uint64(b[16:]), entries: binary.BigEndian.Uint64(b[24:]),
		position: int64(binary.BigEndian.Uint64(b[32:])), ahead: headOf(b[40:]), complete: b[trailerSize-1] != 0,
	}
	if binary.BigEndian.Uint32(b) != 0 || t.id != id || t.position != position ||
		binary.BigEndian.Uint32(b[4:]) != checksum(id, t.blocks, b[blockHeader:]) {
		return fmt.Errorf("%w: it has no valid end", ErrDamaged)
	}
	return nil
}
