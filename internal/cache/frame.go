package cache

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
	frameFormat   = 1
	lastFormat    = 8  // the highest that will ever be one; no text begins with such a byte
	frameHeader   = 32 // beside the key
	stampSize     = 24
	tagOffset     = stampSize + 12 // of the tag in stored: the script compares it there
	messageHeader = stampSize + 8

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

// record is a decoded frame. Key and value are parts of the decoded string.
type record struct {
	op        Op
	published time.Time
	tag       Tag
	key       string
	value     string
}

var errFrame = errors.New("malformed frame")

// checkFormat refuses a stored value of a build with another format. It is no foreign value, which counts as absent:
// the post lives, and a reader that cannot read it must not say that there is none.
func checkFormat(stored string) error {
	if len(stored) <= stampSize {
		return nil
	}
	if format := stored[stampSize]; format != frameFormat && 1 <= format && format <= lastFormat {
		return fmt.Errorf("posts in Redis have format %d, and this build knows %d: run writer and readers of one version, or give each its own CACHE_NAMESPACE", format, frameFormat)
	}
	return nil
}

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

// appendLogged appends what the log has of a write to dst.
func appendLogged(dst []byte, w *Write) []byte {
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

// commit is a decoded message.
type commit struct {
	head     Head   // after it
	previous uint64 // write id of the commit before
	records  []record
}

// version returns the version of record i.
func (c *commit) version(i int) uint64 { return c.head.Version - uint64(len(c.records)-1-i) }

// decode reads a message into c, whose records it reuses. It holds on to s.
func (c *commit) decode(s string) (err error) {
	clear(c.records) // they keep the message before alive
	c.records = c.records[:0]
	if len(s) < messageHeader {
		return fmt.Errorf("%w: message of %d bytes", errFrame, len(s))
	}
	c.head, c.previous = headAt(s), uint64At(s, stampSize)
	for s = s[messageHeader:]; len(s) > 0 || len(c.records) == 0; {
		var r record
		if r, s, err = nextFrame(s); err != nil {
			return err
		}
		c.records = append(c.records, r)
	}
	if n := uint64(len(c.records)); c.head.Version < n {
		return fmt.Errorf("%w: %d writes up to version %d", errFrame, n, c.head.Version)
	}
	return nil
}

// messageHead returns the head after a message, or the zero Head of what is no message.
func messageHead(s string) Head {
	if len(s) < messageHeader {
		return Head{}
	}
	return headAt(s)
}

// decodeStored reads a stored value. It allocates nothing and holds on to s.
func decodeStored(s string) (Head, record, error) {
	if len(s) < stampSize {
		return Head{}, record{}, fmt.Errorf("%w: %d bytes are too short", errFrame, len(s))
	}
	r, rest, err := nextFrame(s[stampSize:])
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes behind it", errFrame, len(rest))
	}
	return headAt(s), r, err
}

// nextFrame takes the first frame off s. It allocates nothing and holds on to s.
func nextFrame(s string) (r record, rest string, err error) {
	if len(s) < frameHeader {
		return r, "", fmt.Errorf("%w: %d bytes are too short", errFrame, len(s))
	}
	if s[0] != frameFormat {
		return r, "", fmt.Errorf("%w: format %d, this reader knows %d", errFrame, s[0], frameFormat)
	}
	op := Op(s[1])
	if op != Set && op != Delete {
		return r, "", fmt.Errorf("%w: operation %d", errFrame, s[1])
	}
	keyLen := int(s[2])<<8 | int(s[3])
	valueLen := int(s[28])<<24 | int(s[29])<<16 | int(s[30])<<8 | int(s[31])
	if keyLen == 0 || keyLen > MaxKey || valueLen > MaxValue || len(s) < frameHeader+keyLen+valueLen {
		return r, "", fmt.Errorf("%w: key of %d and value of %d bytes in %d", errFrame, keyLen, valueLen, len(s))
	}
	r = record{
		op:        op,
		published: time.Unix(0, int64(uint64At(s, 4))),
		key:       s[frameHeader : frameHeader+keyLen],
		value:     s[frameHeader+keyLen : frameHeader+keyLen+valueLen],
	}
	copy(r.tag[:], s[12:28])
	return r, s[frameHeader+keyLen+valueLen:], nil
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
