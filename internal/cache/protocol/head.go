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

// ParseToken parses what String returns, and the token in a position (see ParsePosition). It does not keep s, so the conversion of a short byte slice to s does not
// allocate.
func ParseToken(s string) (Token, error) {
	epoch, version, ok := strings.Cut(s, "-")
	if at := strings.IndexByte(version, '.'); at >= 0 { // a position of the feed
		h, err := ParsePosition(s)
		return h.Token(), err
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

// AppendPosition appends the text of the position h to dst: the token, a dot and the write id in hex. Unlike the token, a
// position names one write even if Redis was rolled back and has assigned the version again.
func (h Head) AppendPosition(dst []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(h.Token().Append(dst), '.')
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[h.WriteID>>shift&15])
	}
	return dst
}

// Position returns what AppendPosition appends.
func (h Head) Position() string { return string(h.AppendPosition(nil)) }

// ParsePosition parses what Position returns, or a token; then the write id is 0.
func ParsePosition(s string) (Head, error) {
	token, id, full := strings.Cut(s, ".")
	if strings.Contains(id, ".") || full && len(id) != 16 {
		return Head{}, fmt.Errorf("position %.60q: want a version token, or one with a dot and 16 hex digits", strings.Clone(s))
	}
	t, err := ParseToken(token)
	if err != nil {
		return Head{}, err
	}
	h := Head{Epoch: t.Epoch, Version: t.Version}
	if full {
		if h.WriteID, err = strconv.ParseUint(id, 16, 64); err != nil {
			return Head{}, fmt.Errorf("position %.60q: the part after the dot is not 16 hex digits", strings.Clone(s))
		}
	}
	return h, nil
}
