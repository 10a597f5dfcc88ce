package protocol

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Head is a point in a history of writes. Two heads are the same point only if all three fields are equal: a primary that
// was rolled back assigns the same versions again, with other write ids.
type Head struct {
	Epoch   uint64 // random, drawn when a history begins; 0 before the first write
	Version uint64 // number of the write, in the total order of the shard's writes
	WriteID uint64 // random, drawn for each commit; 0 when the log does not have it
}

// LogValue returns the fields with the epoch and the write id in hex.
func (h Head) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("epoch", fmt.Sprintf("%016x", h.Epoch)), slog.Uint64("version", h.Version), slog.String("write_id", fmt.Sprintf("%016x", h.WriteID)))
}

// Token names a version of a history. A client sends it to read its own write.
type Token struct {
	Epoch   uint64
	Version uint64
}

// String returns the token as `<epoch in hex>-<version>`.
func (t Token) String() string { return string(t.Append(nil)) }

// Append appends the text of the token to dst.
func (t Token) Append(dst []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[t.Epoch>>shift&15])
	}
	dst = append(dst, '-')
	return strconv.AppendUint(dst, t.Version, 10)
}

// ParseToken parses what String returns, and the token in a position (see Position). It does not keep s, so the conversion
// of a short byte slice to s does not allocate.
func ParseToken(s string) (Token, error) {
	epoch, version, ok := strings.Cut(s, "-")
	if strings.IndexByte(version, '.') >= 0 {
		p, err := ParsePosition(s)
		return p.Token(), err
	}
	if ok && len(epoch) == 16 {
		e, errE := strconv.ParseUint(epoch, 16, 64)
		v, errV := strconv.ParseUint(version, 10, 64)
		if errE == nil && errV == nil {
			return Token{Epoch: e, Version: v}, nil
		}
	}
	return Token{}, fmt.Errorf("version token %.40q: want 16 hex digits, a hyphen and a number", strings.Clone(s))
}

// VersionIn returns the version that a value written at h has in the history of epoch: 0, older than every other value,
// if it was written in another history.
func (h Head) VersionIn(epoch uint64) uint64 {
	if h.Epoch != epoch {
		return 0
	}
	return h.Version
}

// Token returns the token of h.
func (h Head) Token() Token { return Token{Epoch: h.Epoch, Version: h.Version} }

// Reached reports whether the history up to h contains the write that t names. A token without an epoch names no write
// and counts as reached. A token of another epoch does not, because that history may be newer than h.
func (h Head) Reached(t Token) bool {
	return t.Epoch == 0 || t.Epoch == h.Epoch && t.Version <= h.Version
}
