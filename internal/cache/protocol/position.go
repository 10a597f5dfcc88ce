package protocol

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is a place in a history at which a client of the feed resumes.
type Position struct {
	Head // the client has the events up to this point

	// Ahead is the newest write that events before the position were left out for, if it comes after the position; else
	// the zero Head. If Redis is rolled back to a point before it, what was left out is current again, and the client must
	// not continue.
	Ahead Head
}

// Behind reports whether Ahead is after the position.
func (p Position) Behind() bool { return p.Ahead.Version > p.Version }

// Newest returns the newer of the two points of the position.
func (p Position) Newest() Head {
	if p.Behind() {
		return p.Ahead
	}
	return p.Head
}

// Append appends the text of the position to dst: the token, a dot and the write id in hex; then, if p is behind Ahead, a
// tilde and the version and the write id of Ahead. Unlike a token, a position names one write even if Redis was rolled
// back and has assigned the version again.
func (p Position) Append(dst []byte) []byte {
	dst = appendID(append(p.Token().Append(dst), '.'), p.WriteID)
	if p.Behind() {
		dst = strconv.AppendUint(append(dst, '~'), p.Ahead.Version, 10)
		dst = appendID(append(dst, '.'), p.Ahead.WriteID)
	}
	return dst
}

// String returns what Append appends.
func (p Position) String() string { return string(p.Append(nil)) }

func appendID(dst []byte, id uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[id>>shift&15])
	}
	return dst
}

// ParsePosition parses what String returns, or a token; then the write id is 0. It does not keep s.
func ParsePosition(s string) (p Position, err error) {
	bad := func() (Position, error) {
		return Position{}, fmt.Errorf("position %.100q: want a version token, or the id of an event", strings.Clone(s))
	}
	point, ahead, behind := strings.Cut(s, "~")
	token, id, full := strings.Cut(point, ".")
	t, err := ParseToken(token)
	if err != nil {
		return bad()
	}
	p.Epoch, p.Version = t.Epoch, t.Version
	if full {
		if p.WriteID, err = parseID(id); err != nil {
			return bad()
		}
	}
	if behind {
		version, id, _ := strings.Cut(ahead, ".")
		p.Ahead.Epoch = p.Epoch
		if p.Ahead.Version, err = strconv.ParseUint(version, 10, 64); err != nil || !full || !p.Behind() {
			return bad()
		}
		if p.Ahead.WriteID, err = parseID(id); err != nil {
			return bad()
		}
	}
	return p, nil
}

// parseID parses 16 hex digits.
func parseID(s string) (uint64, error) {
	if len(s) != 16 {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 64)
}
