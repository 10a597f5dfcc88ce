package post

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxName is the size in bytes, quotes and escapes included, above which a
// member name is not even looked at. The known names need at most 44.
const maxName = 64

const knownMembers = "send only id, title, content and author, in lower case"

// byteOrderMark is put in front of UTF-8 by editors and tools of Windows. It is no JSON.
var byteOrderMark = []byte("\ufeff")

// Decode parses and validates the JSON of one post. data must be one JSON
// object, after a byte order mark or none, whose members are strings, each at
// most once, named exactly id, title, content and author; content and author may
// be absent or null. The members that [Post.Encode] adds, timestamp and hash,
// are ignored, so that a post can be sent back as it was read. Any error is a
// [*FieldError]. The post shares no memory with data.
func Decode(data []byte) (Post, error) {
	if len(data) > MaxBody {
		return Post{}, &FieldError{
			Reason:   fmt.Sprintf("has %d bytes; shorten it to at most %d", len(data), MaxBody),
			Limit:    MaxBody,
			TooLarge: true,
		}
	}
	var r request
	if err := json.Unmarshal(bytes.TrimPrefix(data, byteOrderMark), &r); err != nil {
		return Post{}, requestError(err)
	}
	p := Post(r)
	if err := p.Validate(); err != nil {
		return Post{}, err
	}
	return p, nil
}

// request is a Post that reads itself token by token. The struct decoder of the
// library would take null for an empty title, and would parse a value of the
// wrong type to its end; here a value is looked at before it is parsed, so no
// nesting and no number is ever descended into.
type request Post

func (r *request) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if k := dec.PeekKind(); k != jsontext.KindBeginObject && k != jsontext.KindInvalid {
		return &FieldError{Reason: "must be one JSON object, not " + kindName(k)}
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		if longName(dec.UnreadBuffer()) {
			return &FieldError{Reason: fmt.Sprintf("has a member name of more than %d bytes; %s", maxName, knownMembers)}
		}
		tok, err := dec.ReadToken()
		if err != nil {
			return err
		}
		name := tok.String() // the next call of dec voids tok
		m, err := r.member(name)
		if err != nil {
			return err
		}
		k := dec.PeekKind()
		if err := m.refuses(k); err != nil {
			return err
		}
		if tok, err = dec.ReadToken(); err != nil {
			return err
		}
		if m.value != nil && k == jsontext.KindString {
			*m.value = tok.String()
		}
	}
	_, err := dec.ReadToken()
	return err
}

// member is what a request may have under a name.
type member struct {
	name     string
	value    *string // nil for one that is ignored
	optional bool    // null counts as absent
}

func (r *request) member(name string) (member, error) {
	switch name {
	case "id":
		return member{name, &r.ID, false}, nil
	case "title":
		return member{name, &r.Title, false}, nil
	case "content":
		return member{name, &r.Content, true}, nil
	case "author":
		return member{name, &r.Author, true}, nil
	case "timestamp", "hash":
		return member{name, nil, true}, nil
	case "": // as a Field it would blame the body
		return member{}, &FieldError{Reason: "has a member with an empty name; " + knownMembers}
	}
	return member{}, &FieldError{Field: name, Reason: "is not known here; " + knownMembers}
}

// refuses returns why the member cannot have a value of kind k.
func (m member) refuses(k jsontext.Kind) error {
	switch {
	case k == jsontext.KindString || k == jsontext.KindInvalid || k == jsontext.KindNull && m.optional:
		return nil
	case m.value != nil:
		return &FieldError{Field: m.name, Reason: "must be a JSON string, not " + kindName(k)}
	case k != jsontext.KindNumber:
		return &FieldError{Field: m.name, Reason: "is ignored, but cannot be " + kindName(k) + "; leave it out"}
	}
	return nil
}

// longName reports whether the next token, in the unread bytes after a value, is
// a string of more than maxName bytes. The decoder copies a name several times,
// to find duplicates and to report errors: a request that is one long name
// would cost 16 times its size.
func longName(unread []byte) bool {
	b := bytes.TrimLeft(unread, ", \t\r\n")
	if len(b) <= maxName || b[0] != '"' {
		return false
	}
	for i := 1; i < maxName; i++ {
		switch b[i] {
		case '"':
			return false
		case '\\':
			i++
		}
	}
	return true
}

// requestError turns an error of the JSON library into a *FieldError.
func requestError(err error) error {
	if fe, ok := errors.AsType[*FieldError](err); ok {
		return fe
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FieldError{Reason: "ends before its JSON object does; send the whole object"}
	}
	se, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return &FieldError{Reason: "cannot be decoded: " + err.Error()}
	}
	field := se.JSONPointer.LastToken()
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &FieldError{Field: field, Reason: "is there more than once; send it once"}
	}
	return &FieldError{
		Field:  field,
		Reason: fmt.Sprintf("is not valid JSON in UTF-8 at byte %d: %v; correct it there", se.ByteOffset, se.Err),
	}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case jsontext.KindNull:
		return "null"
	case jsontext.KindTrue, jsontext.KindFalse:
		return "a boolean"
	case jsontext.KindString:
		return "a string"
	case jsontext.KindNumber:
		return "a number"
	case jsontext.KindBeginArray:
		return "an array"
	case jsontext.KindBeginObject:
		return "an object"
	}
	return "a stray " + k.String()
}
