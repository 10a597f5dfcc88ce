package post

import "encoding/hex"

// A served body ends in its hash member and the brace that closes the object:
//
//	,"hash":"0123456789abcdef0123456789abcdef"}
//
// A strong ETag is a quoted string, and so is the value of that member: the tag
// of a body is a substring of it.
const (
	hashKey     = `,"hash":`
	etagLen     = len(`"`) + 2*16 + len(`"`)
	hashTailLen = len(hashKey) + etagLen + len(`}`)
)

// AppendETag appends the strong ETag of sum, quotes included, to dst.
func AppendETag(dst []byte, sum [16]byte) []byte {
	dst = append(dst, '"')
	dst = hex.AppendEncode(dst, sum[:])
	return append(dst, '"')
}

// ParseETag is the inverse of [AppendETag]. It accepts nothing else: no weak
// tag, no list, no upper-case digit, because ETags are compared byte by byte.
func ParseETag(s string) (sum [16]byte, ok bool) {
	if !isETag(s) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(s[1:etagLen-1]))
	return sum, err == nil
}

// ETag returns the ETag, quotes included, of a body that [Post.Encode] made: a
// substring of body, so it allocates nothing and is valid as long as body is.
// It returns "" if body does not end like an encoded post.
func ETag(body string) string {
	start := len(body) - hashTailLen
	if start < 0 || body[start:start+len(hashKey)] != hashKey || body[len(body)-1] != '}' {
		return ""
	}
	tag := body[start+len(hashKey) : len(body)-1]
	if !isETag(tag) {
		return ""
	}
	return tag
}

func isETag(s string) bool {
	if len(s) != etagLen || s[0] != '"' || s[etagLen-1] != '"' {
		return false
	}
	for _, c := range []byte(s[1 : etagLen-1]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func appendHashTail(dst []byte, sum [16]byte) []byte {
	dst = append(dst, hashKey...)
	dst = AppendETag(dst, sum)
	return append(dst, '}')
}
