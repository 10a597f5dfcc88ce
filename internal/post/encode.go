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
	Body []byte   // the JSON; whoever holds it must not change it
	Sum  [16]byte // MD5 of the JSON object without its hash member
}

// maxTimestamp is the length of the longest int64, sign included.
const maxTimestamp = len("-9223372036854775808")

// Encode returns the JSON that is served for p from now on:
//
//	{"id":"..","title":"..","content":"..","author":"..","timestamp":N,"hash":".."}
//
// timestamp is now in Unix milliseconds: more digits than a float64 holds would be
// changed by JavaScript and jq, and the hash of what they write would not match.
// (Posts of older writers have nanoseconds; they are served as they are.) hash is the last member, so that the
// JSON it is computed over is the body without `,"hash":"..."`: it changes
// exactly when the served bytes change. MD5 names a version here and protects
// nothing: whoever can write a post can also write its hash.
//
// Strings are escaped only where JSON demands it: <, >, &, U+2028 and U+2029
// stay as they are, and the body must not be pasted unescaped into a script
// element. Encode allocates once. p must be valid: it does not check the limits,
// and invalid UTF-8 becomes U+FFFD.
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
	sum := md5.Sum(append(b, '}')) // the brace gives way to the hash member
	return Encoded{Body: appendHashTail(b[:end], sum), Sum: sum}
}

// Verify recomputes the hash of a served body and returns an error unless it is
// the one that the body carries. It does not parse the JSON.
func Verify(body []byte) error {
	end := len(body) - hashTailLen
	if end < 0 {
		return fmt.Errorf("verify post: %d bytes are too few to hold a hash", len(body))
	}
	h := md5.New()
	h.Write(body[:end])
	h.Write([]byte{'}'})
	sum := [md5.Size]byte(h.Sum(nil))
	if want := appendHashTail(nil, sum); string(body[end:]) != string(want) {
		return fmt.Errorf("verify post: body ends in %q, its bytes call for %q", body[end:], want)
	}
	return nil
}

// stored is the served JSON in full, for code that decodes it.
type stored struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	Content   string `json:"content"`
	Author    string `json:"author"`
	Timestamp int64  `json:"timestamp"`
	Hash      string `json:"hash"`
}

// Remarshal parses a served body into a struct and marshals that again. It is
// what a reader without prepared bytes does on every read, kept as a baseline
// to measure against: the result is byte-identical to body.
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

// appendQuoted appends s as a JSON string. The only error there is, invalid
// UTF-8, still leaves a JSON string behind; see Encode.
func appendQuoted(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// quotedLen is the number of bytes appendQuoted appends for valid UTF-8.
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
