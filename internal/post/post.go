// Package post defines a post: its limits, the JSON a client sends and the JSON
// that is served.
//
// A post is encoded exactly once, by the writer. Everybody else treats the
// served JSON as opaque bytes: the tail of the body carries its own ETag, so
// not even the answer to a conditional request needs a parser (see [ETag]).
package post

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Limits of a post, in bytes of UTF-8. An id and a title have at least one byte.
const (
	MaxID      = 256
	MaxTitle   = 1024
	MaxAuthor  = 256
	MaxContent = 1 << 20
)

// MaxBody is the size in bytes above which no request body is read: a legal
// post fits even when every byte of it is escaped as \u00XX, with room for
// member names and white space.
const MaxBody = 6*(MaxID+MaxTitle+MaxAuthor+MaxContent) + 16<<10

// Post is what a client sends. The writer adds a timestamp and a hash, see
// [Post.Encode].
type Post struct {
	ID, Title, Content, Author string
}

// FieldError names which part of a request must change, and how. Its text is
// meant for the client: it quotes at most the beginning of what was sent.
type FieldError struct {
	Field    string // the JSON member, or "" for the body as a whole
	Reason   string // the rest of a sentence that starts with the field
	Limit    int    // the limit in bytes that was exceeded; 0 if none was
	TooLarge bool   // a size limit was exceeded: HTTP 413 rather than 400
}

// Error returns one sentence that says what to change.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return "the body " + e.Reason
	}
	return fmt.Sprintf("%q %s", e.Field, e.Reason)
}

// Validate checks the limits of all fields. Its error is a [*FieldError] for
// the first field, in the order of the encoding, that must change.
func (p Post) Validate() error {
	if err := ValidateID(p.ID); err != nil {
		return err
	}
	if err := validateText("title", p.Title, 1, MaxTitle); err != nil {
		return err
	}
	if err := validateText("content", p.Content, 0, MaxContent); err != nil {
		return err
	}
	return validateText("author", p.Author, 0, MaxAuthor)
}

// ValidateID checks an id, of a post or of a request's ?id= parameter: 1 to
// [MaxID] bytes of UTF-8 without control characters. Its error is a
// [*FieldError] for the field "id".
func ValidateID(id string) error {
	if err := validateText("id", id, 1, MaxID); err != nil {
		return err
	}
	for i, r := range id {
		if unicode.IsControl(r) { // exactly C0, DEL and C1
			return &FieldError{Field: "id", Reason: fmt.Sprintf("has the control character %U at byte %d; remove it", r, i)}
		}
	}
	return nil
}

func validateText(field, s string, atLeast, atMost int) error {
	switch {
	case len(s) < atLeast:
		return &FieldError{Field: field, Reason: fmt.Sprintf("is missing or empty; send %d to %d bytes", atLeast, atMost)}
	case len(s) > atMost:
		return &FieldError{
			Field:    field,
			Reason:   fmt.Sprintf("has %d bytes; shorten it to at most %d", len(s), atMost),
			Limit:    atMost,
			TooLarge: true,
		}
	case !utf8.ValidString(s):
		return &FieldError{Field: field, Reason: "is not valid UTF-8; encode it as UTF-8"}
	}
	return nil
}
