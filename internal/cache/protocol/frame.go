package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// What travels and what is stored, all numbers big-endian:
//
//	message = head after the commit (24) + previous write id (8) + frames
//	stored  = epoch (8) + version (8) + write id (8) + frame
//	frame   = format (1) + operation (1) + key length (2) + published, Unix ns by Redis's clock (8) +
//	          tag (16) + value length (4) + key + value
//
// A commit is what one call of the script wrote, under one write id. The writer makes the frames
// once; the script puts its stamp in front. A delete is published and logged but not stored. What
// the log has of a write is operation (1), key length (2) and key.
//
// The format counts for all of it: a build that changes the message, what is stored or what the log has takes the
// next number, and reads the one before or leaves it to checkFormat to refuse it.
const (
	FrameFormat   = 1
	lastFormat    = 8  // the highest that will ever be one; no text begins with such a byte
	FrameHeader   = 32 // beside the key
	StampSize     = 24
	tagOffset     = StampSize + 12 // of the tag in stored: the script compares it there
	MessageHeader = StampSize + 8

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

// Record is a decoded frame. Key and value are parts of the decoded string.
type Record struct {
	Op        Op
	Published time.Time
	Tag       Tag
	Key       string
	Value     string
}

var ErrFrame = errors.New("malformed frame")

// CheckFormat refuses a stored value of a build with another format. It is no foreign value, which counts as absent:
// the post lives, and a reader that cannot read it must not say that there is none.
func CheckFormat(stored string) error {
	if len(stored) <= StampSize {
		return nil
	}
	if format := stored[StampSize]; format != FrameFormat && 1 <= format && format <= lastFormat {
		return fmt.Errorf("posts in Redis have format %d, and this build knows %d: run writer and readers of one version, or give each its own CACHE_NAMESPACE", format, FrameFormat)
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

// AppendLogged appends what the log has of a write to dst.
func AppendLogged(dst []byte, w *Write) []byte {
	dst = append(dst, byte(w.Op))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(w.Key)))
	return append(dst, w.Key...)
}

// countLogged returns the number of writes that an entry of the log has, or false when it is cut or
// not one of ours.
func countLogged(s string) (writes int, ok bool) {
	for len(s) > 0 {
		if op := Op(s[0]); op != Set && op != Delete || len(s) < 3 || len(s) < 3+int(s[1])<<8+int(s[2]) {
			return 0, false
		}
		s = s[3+int(s[1])<<8+int(s[2]):]
		writes++
	}
	return writes, writes > 0
}

// Commit is a decoded message.
type Commit struct {
	Head     Head   // after it
	Previous uint64 // write id of the commit before
	Records  []Record
}

// Version returns the version of record i.
func (c *Commit) Version(i int) uint64 { return c.Head.Version - uint64(len(c.Records)-1-i) }

// Decode reads a message into c, whose records it reuses. It holds on to s.
func (c *Commit) Decode(s string) (err error) {
	clear(c.Records) // they keep the message before alive
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

// MessageHead returns the head after a message, or the zero Head of what is no message.
func MessageHead(s string) Head {
	if len(s) < MessageHeader {
		return Head{}
	}
	return headAt(s)
}

// DecodeStored reads a stored value. It allocates nothing and holds on to s.
func DecodeStored(s string) (Head, Record, error) {
	if len(s) < StampSize {
		return Head{}, Record{}, fmt.Errorf("%w: %d bytes are too short", ErrFrame, len(s))
	}
	r, rest, err := nextFrame(s[StampSize:])
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes behind it", ErrFrame, len(rest))
	}
	return headAt(s), r, err
}

// nextFrame takes the first frame off s. It allocates nothing and holds on to s.
func nextFrame(s string) (r Record, rest string, err error) {
	if len(s) < FrameHeader {
		return r, "", fmt.Errorf("%w: %d bytes are too short", ErrFrame, len(s))
	}
	if s[0] != FrameFormat {
		return r, "", fmt.Errorf("%w: format %d, this reader knows %d", ErrFrame, s[0], FrameFormat)
	}
	op := Op(s[1])
	if op != Set && op != Delete {
		return r, "", fmt.Errorf("%w: operation %d", ErrFrame, s[1])
	}
	keyLen := int(s[2])<<8 | int(s[3])
	valueLen := int(s[28])<<24 | int(s[29])<<16 | int(s[30])<<8 | int(s[31])
	if keyLen == 0 || keyLen > MaxKey || valueLen > MaxValue || len(s) < FrameHeader+keyLen+valueLen {
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

func headAt(s string) Head {
	return Head{Epoch: uint64At(s, 0), Version: uint64At(s, 8), WriteID: uint64At(s, 16)}
}

// uint64At reads a big-endian number without a copy of s.
func uint64At(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[7]) | uint64(s[6])<<8 | uint64(s[5])<<16 | uint64(s[4])<<24 |
		uint64(s[3])<<32 | uint64(s[2])<<40 | uint64(s[1])<<48 | uint64(s[0])<<56
}
