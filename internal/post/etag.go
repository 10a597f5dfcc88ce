package post

import "encoding/hex"

// A served body ends with its hash member and the closing brace of the object:
//
//	,"hash":"0123456789abcdef0123456789abcdef"}
//
// A strong ETag is a quoted string, like the value of that member, so the ETag
// of a body is a substring of the body.
const (
	hashKey     = `,"hash":`
	etagLen     = len(`"`) + 2*16 + len(`"`)
	hashTailLen = len(hashKey) + etagLen + len(`}`)
)

// AppendETag appends the strong ETag of sum to dst, including the quotes.
func AppendETag(dst []byte, sum [16]byte) []byte {
	dst = append(dst, '"')
	dst = hex.AppendEncode(dst, sum[:])
	return append(dst, '"')
}

// ParseETag is the inverse of [AppendETag]. It rejects all other forms, such as
// weak tags, lists and upper-case digits, because ETags are compared byte by
// byte.
func ParseETag(s string) (sum [16]byte, ok bool) {
	if !isETag(s) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(s[1:etagLen-1]))
	return sum, err == nil
}

// ETag returns the ETag of a body that [Post.Encode] returned, including the
// quotes. The ETag is a substring of body, so nothing is allocated. ETag returns
// "" if body does not end like an encoded post.
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
