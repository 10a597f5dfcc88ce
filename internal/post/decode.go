package post

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxName is the maximum length of a member name in bytes, including quotes and
// escapes; longer names are not decoded. The known names need at most 44.
const maxName = 64

const knownMembers = "send only id, title, content and author, in lower case"

// byteOrderMark is the prefix that Windows editors and tools add to UTF-8. JSON does not allow it.
var byteOrderMark = []byte("\ufeff")

// Decode parses and validates the JSON of one post. data must be one JSON
// object with the string members id, title, content and author, each at most
// once; content and author may be absent or null. The members timestamp and hash,
// which [Post.Encode] adds, are ignored, so that clients can send back a post
// that they have read. A byte order mark before the object is skipped. Every
// error is a [*FieldError]. The post shares no memory with data.
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

// request is a Post that is decoded token by token. The library's struct decoder
// would accept null as an empty title and would parse a value of the wrong type
// to its end. This decoder checks the kind of each value before parsing it, so
// it never parses nested values or long numbers.
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
		name := tok.String() // a copy: the next call of dec invalidates tok
		m, err := r.member(name)
		if err != nil {
			return err
		}
		k := dec.PeekKind()
		if err := m.checkKind(k); err != nil {
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

// member describes a member that a request may have.
type member struct {
	name     string
	value    *string // destination; nil if the member is ignored
	optional bool    // null is accepted and counts as absent
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
	case "": // a FieldError with this name would refer to the whole body
		return member{}, &FieldError{Reason: "has a member with an empty name; " + knownMembers}
	}
	return member{}, &FieldError{Field: name, Reason: "is not a known member; " + knownMembers}
}

// checkKind returns an error if the member must not have a value of kind k.
func (m member) checkKind(k jsontext.Kind) error {
	switch {
	case k == jsontext.KindString || k == jsontext.KindInvalid || k == jsontext.KindNull && m.optional:
		return nil
	case m.value != nil:
		return &FieldError{Field: m.name, Reason: "must be a JSON string, not " + kindName(k)}
	case k != jsontext.KindNumber:
		return &FieldError{Field: m.name, Reason: "is ignored, but cannot be " + kindName(k) + "; omit it"}
	}
	return nil
}

// longName reports whether the next token in the unread bytes is a string of
// more than maxName bytes. The decoder copies a name several times, to detect
// duplicates and to report errors: a request that consists of one long name
// would allocate 16 times its size.
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

// requestError converts an error of the JSON library to a *FieldError.
func requestError(err error) error {
	if fe, ok := errors.AsType[*FieldError](err); ok {
		return fe
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FieldError{Reason: "ends before the end of its JSON object; send the whole object"}
	}
	se, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return &FieldError{Reason: "cannot be decoded: " + err.Error()}
	}
	field := se.JSONPointer.LastToken()
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &FieldError{Field: field, Reason: "is present more than once; send it once"}
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
