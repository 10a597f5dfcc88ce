package post

import (
	"crypto/md5"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Encoded is a post as it is stored and served.
type Encoded struct {
	Body []byte   // the JSON; must not be modified
	Sum  [16]byte // MD5 of the JSON object without its hash member
}

// maxTimestamp is the length of the longest int64, including its sign.
const maxTimestamp = len("-9223372036854775808")

// Encode returns the JSON that is served for p:
//
//	{"id":"..","title":"..","content":"..","author":"..","timestamp":N,"hash":".."}
//
// timestamp is now in Unix milliseconds, which a float64 represents exactly:
// JavaScript and jq would round nanoseconds, and the hash of a body that they
// write again would not match. (Posts of older writers have nanoseconds and are
// served unchanged.)
//
// hash is computed over the JSON object without its hash member, so it changes
// if and only if the served bytes change. Because it is the last member, that
// object is the body without `,"hash":"..."`. MD5 only identifies a version
// here. It protects nothing, because a client that can write a post can also
// compute its hash.
//
// Strings are escaped only where JSON requires it: <, >, &, U+2028 and U+2029
// are not escaped, so the body must not be pasted into a script element. Encode
// allocates once. p must be valid: Encode does not check the limits and replaces
// invalid UTF-8 by U+FFFD.
func (p Post) Encode(now time.Time) Encoded {
	size := len(`{"id":,"title":,"content":,"author":,"timestamp":`) + maxTimestamp + hashTailLen +
		quotedLen(p.ID) + quotedLen(p.Title) + quotedLen(p.Content) + quotedLen(p.Author)
	b := make([]byte, 0, size)
	b = appendQuoted(append(b, `{"id":`...), p.ID)
	b = appendQuoted(append(b, `,"title":`...), p.Title)
	b = appendQuoted(append(b, `,"content":`...), p.Content)
	b = appendQuoted(append(b, `,"author":`...), p.Author)
	b = strconv.AppendInt(append(b, `,"timestamp":`...), now.UnixMilli(), 10)

	end := len(b)
	sum := md5.Sum(append(b, '}')) // the hash member will overwrite this brace
	return Encoded{Body: appendHashTail(b[:end], sum), Sum: sum}
}

// Verify returns an error unless the hash of a served body matches its content.
// It does not parse the JSON.
func Verify(body []byte) error {
	end := len(body) - hashTailLen
	if end < 0 {
		return fmt.Errorf("verify post: a body of %d bytes is too short to contain a hash", len(body))
	}
	h := md5.New()
	h.Write(body[:end])
	h.Write([]byte{'}'})
	sum := [md5.Size]byte(h.Sum(nil))
	if want := appendHashTail(nil, sum); string(body[end:]) != string(want) {
		return fmt.Errorf("verify post: the body ends in %q, but the hash of its content requires %q", body[end:], want)
	}
	return nil
}

// stored has all members of the served JSON, for Remarshal.
type stored struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	Content   string `json:"content"`
	Author    string `json:"author"`
	Timestamp int64  `json:"timestamp"`
	Hash      string `json:"hash"`
}

// Remarshal parses a served body into a struct and marshals the struct. The
// result is byte-identical to body. It is a baseline for benchmarks: a reader
// that stores structs would do this on every read.
func Remarshal(body []byte) ([]byte, error) {
	var s stored
	if err := json.Unmarshal(body, &s, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("unmarshal post: %w", err)
	}
	b, err := json.Marshal(&s)
	if err != nil {
		return nil, fmt.Errorf("marshal post: %w", err)
	}
	return b, nil
}

// appendQuoted appends s as a JSON string. AppendQuote fails only for invalid
// UTF-8, and then it still appends a valid JSON string.
func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// quotedLen returns the number of bytes that appendQuoted appends for valid UTF-8.
func quotedLen(s string) int {
	n := len(`""`) + len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c >= ' ' && c != '"' && c != '\\':
		case c >= ' ', c == '\b', c == '\t', c == '\n', c == '\f', c == '\r':
			n += len(`\n`) - 1
		default:
			n += len(`\u0000`) - 1
		}
	}
	return n
}
