// Package post defines a post: its limits, the JSON that clients send and the
// JSON that is served.
//
// The writer encodes each post exactly once. All other code treats the served
// JSON as opaque bytes: the body ends with its own ETag, so even a conditional
// request is answered without parsing (see [ETag]).
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

// MaxBody is the maximum size of a request body, in bytes. A valid post fits
// even if each of its bytes is escaped as \u00XX, with room for member names
// and white space.
const MaxBody = 6*(MaxID+MaxTitle+MaxAuthor+MaxContent) + 16<<10

// Post holds the fields that a client sends. [Post.Encode] adds a timestamp and
// a hash.
type Post struct {
	ID, Title, Content, Author string
}

// FieldError reports which part of a request is invalid and how to correct it.
// Its text is meant for the client and quotes at most the beginning of the
// request.
type FieldError struct {
	Field    string // the JSON member, or "" for the whole body
	Reason   string // the rest of a sentence that begins with the field
	Limit    int    // the limit in bytes that was exceeded; 0 if none was
	TooLarge bool   // a size limit was exceeded: HTTP 413 rather than 400
}

// Error returns a sentence that tells the client what to change.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return "the body " + e.Reason
	}
	return fmt.Sprintf("%q %s", e.Field, e.Reason)
}

// Validate checks the limits of all fields. It returns a [*FieldError] for the
// first invalid field, in the order of the encoding.
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

// ValidateID checks the id of a post or of a request's ?id= parameter: it must
// be 1 to [MaxID] bytes of UTF-8 without control characters. The error is a
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
