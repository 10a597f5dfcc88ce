package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What travels and what is stored, all numbers big-endian:
//
//	message = for each write of a script: length of the rest (4) + previous write id (8) + stored
//	stored  = epoch (8) + version (8) + write id (8) + frame
//	frame   = format (1) + operation (1) + key length (2) + published, Unix ns (8) + tag (16) +
//	          value length (4) + key + value
//
// The writer makes the frame once; the script puts its stamp in front. The bytes of stored are the
// same under the key and on the channel. A delete is published and logged but not stored.
const (
	frameFormat  = 1
	frameHeader  = 32 // beside the key
	stampSize    = 24
	tagOffset    = stampSize + 12 // of the tag in stored: the script compares it there
	previousSize = 8

	// MaxKey and MaxValue bound a key and a value, in bytes.
	MaxKey   = 4 << 10
	MaxValue = 16 << 20
)

// Op is what a write does.
type Op byte

// The operations.
const (
	Set    Op = 1
	Delete Op = 2
)

// Tag is a fingerprint of a value, such as its MD5: conditional writes compare it. It is opaque to
// this package.
type Tag [16]byte

// record is a decoded stored value. Key and value are parts of the decoded string.
type record struct {
	head      Head
	op        Op
	published time.Time
	tag       Tag
	key       string
	value     string
}

var errFrame = errors.New("malformed frame")

// appendFrame appends the frame of a write to dst.
func appendFrame(dst []byte, w *Write, published time.Time) []byte {
	dst = append(dst, frameFormat, byte(w.Op))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(w.Key)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(published.UnixNano()))
	dst = append(dst, w.Tag[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(w.Value)))
	dst = append(dst, w.Key...)
	return append(dst, w.Value...)
}

// update is one write in a message.
type update struct {
	previous uint64 // write id of the write before
	record
}

// nextUpdate takes the first write off a message. It allocates nothing and holds on to s.
func nextUpdate(s string) (u update, rest string, err error) {
	if len(s) < 4 {
		return u, "", fmt.Errorf("%w: message of %d bytes", errFrame, len(s))
	}
	size := int(s[0])<<24 | int(s[1])<<16 | int(s[2])<<8 | int(s[3])
	if s = s[4:]; size < previousSize || size > len(s) {
		return u, "", fmt.Errorf("%w: write of %d bytes in a message of %d", errFrame, size, len(s))
	}
	u.previous = uint64At(s, 0)
	u.record, err = decodeStored(s[previousSize:size])
	return u, s[size:], err
}

// lastHead returns epoch and version of the last write in a message, as far as it can be read.
func lastHead(s string) (epoch, version uint64) {
	for len(s) >= 4+previousSize+16 {
		epoch, version = uint64At(s, 4+previousSize), uint64At(s, 4+previousSize+8)
		s = s[min(len(s), 4+(int(s[0])<<24|int(s[1])<<16|int(s[2])<<8|int(s[3]))):]
	}
	return epoch, version
}

// decodeStored reads a stored value. It allocates nothing and holds on to s.
func decodeStored(s string) (record, error) {
	if len(s) < stampSize+frameHeader {
		return record{}, fmt.Errorf("%w: %d bytes are too short", errFrame, len(s))
	}
	f := s[stampSize:]
	if f[0] != frameFormat {
		return record{}, fmt.Errorf("%w: format %d, this reader knows %d", errFrame, f[0], frameFormat)
	}
	op := Op(f[1])
	if op != Set && op != Delete {
		return record{}, fmt.Errorf("%w: operation %d", errFrame, f[1])
	}
	keyLen := int(f[2])<<8 | int(f[3])
	valueLen := int(f[28])<<24 | int(f[29])<<16 | int(f[30])<<8 | int(f[31])
	if keyLen == 0 || keyLen > MaxKey || valueLen > MaxValue || len(f) != frameHeader+keyLen+valueLen {
		return record{}, fmt.Errorf("%w: key of %d and value of %d bytes in a frame of %d", errFrame, keyLen, valueLen, len(f))
	}
	rec := record{
		head:      Head{Epoch: uint64At(s, 0), Version: uint64At(s, 8), WriteID: uint64At(s, 16)},
		op:        op,
		published: time.Unix(0, int64(uint64At(f, 4))),
		key:       f[frameHeader : frameHeader+keyLen],
		value:     f[frameHeader+keyLen:],
	}
	copy(rec.tag[:], f[12:28])
	return rec, nil
}

// uint64At reads a big-endian number without a copy of s.
func uint64At(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[7]) | uint64(s[6])<<8 | uint64(s[5])<<16 | uint64(s[4])<<24 |
		uint64(s[3])<<32 | uint64(s[2])<<40 | uint64(s[1])<<48 | uint64(s[0])<<56
}
