package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Layouts, with sizes in bytes; all numbers are big-endian:
//
//	message = head after the commit (24) + previous write id (8) + frames
//	stored  = stamp: epoch (8) + version (8) + write id (8); then frame
//	frame   = format (1) + operation (1) + key length (2) + published, Unix ns by Redis's clock (8) +
//	          tag (16) + value length (4) + key + value
//	logged  = operation (1) + key length (2) + key
//
// A commit is the writes of one call of write.lua, under one write id. The writer encodes the frames, and the script
// puts the stamp in front. A delete is published and logged but not stored.
//
// The format number covers all layouts. A build that changes one of them uses the next number, and either reads the
// previous format or rejects it in CheckFormat.
const (
	FrameFormat   = 1
	lastFormat    = 8              // highest format number that a build may use; text begins with larger bytes
	FrameHeader   = 32             // size of a frame without key and value
	StampSize     = 24             // size of the stamp of a stored value
	tagOffset     = StampSize + 12 // offset of the tag in a stored value, where write.lua compares it
	MessageHeader = StampSize + 8  // size of a message without frames
	loggedHeader  = 3              // size of a logged write without the key
	entryHeader   = 16             // size of a log entry without the writes: write id, previous write id

	maxKey = 4 << 10 // largest key, in bytes
	// MaxValue is the size of the largest value, in bytes.
	MaxValue = 16 << 20
)

// Op is the operation of a write.
type Op byte

// The operations.
const (
	Set    Op = 1
	Delete Op = 2
)

// Tag is a fingerprint of a value, such as its MD5. Conditional writes compare it; this package does not interpret it.
type Tag [16]byte

// Record is a decoded frame. Key and value are substrings of the decoded string.
type Record struct {
	Op        Op
	Published time.Time
	Tag       Tag
	Key       string
	Value     string
}

// ErrFrame reports bytes that are not in the format of this package.
var ErrFrame = errors.New("malformed frame")

// CheckFormat rejects a stored value in the format of another build. Other bytes that cannot be decoded count as absent,
// but such a value must not: the post exists, and a reader that cannot decode it must not answer 404.
func CheckFormat(stored string) error {
	if len(stored) <= StampSize {
		return nil
	}
	if format := stored[StampSize]; format != FrameFormat && 1 <= format && format <= lastFormat {
		return fmt.Errorf("posts in Redis have format %d, and this build reads format %d: run writer and readers of one version, or set another CACHE_NAMESPACE for each version", format, FrameFormat)
	}
	return nil
}

// AppendFrame appends the frame of a write to dst.
func AppendFrame(dst []byte, w *Write, published time.Time) []byte {
	dst = append(dst, FrameFormat, byte(w.Op))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(w.Key)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(published.UnixNano()))
	dst = append(dst, w.Tag[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(w.Value)))
	dst = append(dst, w.Key...)
	return append(dst, w.Value...)
}

// AppendLogged appends a write to dst in the layout of a log entry.
func AppendLogged(dst []byte, w *Write) []byte {
	dst = append(dst, byte(w.Op))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(w.Key)))
	return append(dst, w.Key...)
}

// countLogged returns the number of logged writes in s, or false when s is cut or malformed.
func countLogged(s string) (writes int, ok bool) {
	for len(s) > 0 {
		if op := Op(s[0]); op != Set && op != Delete || len(s) < loggedHeader {
			return 0, false
		}
		size := loggedHeader + int(s[1])<<8 + int(s[2])
		if len(s) < size {
			return 0, false
		}
		s = s[size:]
		writes++
	}
	return writes, writes > 0
}

// nextLogged decodes the first logged write of s, which countLogged has accepted, and returns the rest of s.
func nextLogged(s string) (op Op, key, rest string) {
	size := loggedHeader + int(s[1])<<8 + int(s[2])
	return Op(s[0]), s[loggedHeader:size], s[size:]
}

// Commit is a decoded message.
type Commit struct {
	Head     Head   // head after the commit
	Previous uint64 // write id of the previous commit
	Records  []Record
}

// Version returns the version of record i.
func (c *Commit) Version(i int) uint64 { return c.Head.Version - uint64(len(c.Records)-1-i) }

// Decode decodes a message into c and reuses its records, which refer to s.
func (c *Commit) Decode(s string) (err error) {
	clear(c.Records) // otherwise they keep the previous message alive
	c.Records = c.Records[:0]
	if len(s) < MessageHeader {
		return fmt.Errorf("%w: message of %d bytes", ErrFrame, len(s))
	}
	c.Head, c.Previous = headAt(s), uint64At(s, StampSize)
	for s = s[MessageHeader:]; len(s) > 0 || len(c.Records) == 0; {
		var r Record
		if r, s, err = nextFrame(s); err != nil {
			return err
		}
		c.Records = append(c.Records, r)
	}
	if n := uint64(len(c.Records)); c.Head.Version < n {
		return fmt.Errorf("%w: %d writes up to version %d", ErrFrame, n, c.Head.Version)
	}
	return nil
}

// MessageHead returns the head after the commit of a message, or the zero Head when s is too short for a message.
func MessageHead(s string) Head {
	if len(s) < MessageHeader {
		return Head{}
	}
	return headAt(s)
}

// DecodeStored decodes a stored value. It allocates nothing; the record refers to s.
func DecodeStored(s string) (Head, Record, error) {
	if len(s) < StampSize {
		return Head{}, Record{}, fmt.Errorf("%w: %d bytes are too short", ErrFrame, len(s))
	}
	r, rest, err := nextFrame(s[StampSize:])
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes after the frame", ErrFrame, len(rest))
	}
	return headAt(s), r, err
}

// nextFrame decodes the first frame of s and returns the rest of s. It allocates nothing; the record refers to s.
func nextFrame(s string) (r Record, rest string, err error) {
	if len(s) < FrameHeader {
		return r, "", fmt.Errorf("%w: %d bytes are too short", ErrFrame, len(s))
	}
	if s[0] != FrameFormat {
		return r, "", fmt.Errorf("%w: format %d, this build reads format %d", ErrFrame, s[0], FrameFormat)
	}
	op := Op(s[1])
	if op != Set && op != Delete {
		return r, "", fmt.Errorf("%w: operation %d", ErrFrame, s[1])
	}
	keyLen := int(s[2])<<8 | int(s[3])
	valueLen := int(s[28])<<24 | int(s[29])<<16 | int(s[30])<<8 | int(s[31])
	if keyLen == 0 || keyLen > maxKey || valueLen > MaxValue || len(s) < FrameHeader+keyLen+valueLen {
		return r, "", fmt.Errorf("%w: key of %d and value of %d bytes in %d", ErrFrame, keyLen, valueLen, len(s))
	}
	r = Record{
		Op:        op,
		Published: time.Unix(0, int64(uint64At(s, 4))),
		Key:       s[FrameHeader : FrameHeader+keyLen],
		Value:     s[FrameHeader+keyLen : FrameHeader+keyLen+valueLen],
	}
	copy(r.Tag[:], s[12:28])
	return r, s[FrameHeader+keyLen+valueLen:], nil
}

// headAt decodes the head at the start of s.
func headAt(s string) Head {
	return Head{Epoch: uint64At(s, 0), Version: uint64At(s, 8), WriteID: uint64At(s, 16)}
}

// uint64At decodes a big-endian number without a copy of s.
func uint64At(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[7]) | uint64(s[6])<<8 | uint64(s[5])<<16 | uint64(s[4])<<24 |
		uint64(s[3])<<32 | uint64(s[2])<<40 | uint64(s[1])<<48 | uint64(s[0])<<56
}
