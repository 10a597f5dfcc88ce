package post

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// wantFieldError checks that err is a *FieldError with these properties and that
// its text is a short sentence about the field.
func wantFieldError(t *testing.T, err error, field string, limit int) *FieldError {
	t.Helper()
	fe, ok := errors.AsType[*FieldError](err)
	if !ok {
		t.Fatalf("error is %T %v, want a *FieldError", err, err)
	}
	if fe.Field != field || fe.Limit != limit || fe.TooLarge != (limit > 0) {
		t.Errorf("got field %q, limit %d, too large %v (%v); want field %q, limit %d",
			fe.Field, fe.Limit, fe.TooLarge, fe, field, limit)
	}
	subject := "the body "
	if field != "" {
		subject = `"` + field
	}
	if s := fe.Error(); !strings.HasPrefix(s, subject) || len(s) > 300 {
		t.Errorf("error text %q, want a short sentence that starts with %q", s, subject)
	}
	return fe
}

// fill returns n bytes: repetitions of unit after ASCII padding.
func fill(unit string, n int) string {
	return strings.Repeat("a", n%len(unit)) + strings.Repeat(unit, n/len(unit))
}

func TestLimits(t *testing.T) {
	fields := []struct {
		name     string
		max      int // literal numbers, because the limits are a promise to clients
		required bool
		set      func(*Post, string)
	}{
		{"id", 256, true, func(p *Post, s string) { p.ID = s }},
		{"title", 1024, true, func(p *Post, s string) { p.Title = s }},
		{"author", 256, false, func(p *Post, s string) { p.Author = s }},
		{"content", 1048576, false, func(p *Post, s string) { p.Content = s }},
	}
	for _, f := range fields {
		for _, unit := range []string{"a", "é", "€", "😀"} { // 1 to 4 bytes each
			t.Run(f.name+"/"+unit, func(t *testing.T) {
				p := Post{ID: "i", Title: "t"}
				check := func(name, value string, bad bool, limit int) {
					t.Helper()
					f.set(&p, value)
					direct := p.Validate()
					_, decoded := Decode(marshalRequest(t, p))
					for _, err := range []error{direct, decoded} {
						if bad {
							wantFieldError(t, err, f.name, limit)
						} else if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					}
				}
				check("empty", "", f.required, 0)
				check("one character", unit, false, 0)
				check("at the limit", fill(unit, f.max), false, 0)
				check("over the limit", fill(unit, f.max+1), true, f.max)
				check("far over the limit", fill(unit, f.max+5000), true, f.max)
			})
		}
		t.Run(f.name+"/invalid UTF-8", func(t *testing.T) {
			for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80"} {
				p := Post{ID: "i", Title: "t"}
				f.set(&p, bad)
				wantFieldError(t, p.Validate(), f.name, 0)
			}
		})
	}
}

func TestValidateID(t *testing.T) {
	for _, id := range []string{"a", " ", "~", "\u00a0", "a/b?c=d&e", `"\`, "{posts:0}", "\u2028", "\ufffd", "日本語", "😀", strings.Repeat("€", 85) + "a"} {
		if err := ValidateID(id); err != nil {
			t.Errorf("ValidateID(%q) = %v", id, err)
		}
	}
	for c := range rune(0x100) {
		err := ValidateID("id" + string(c) + "x")
		control := c <= 0x1f || c >= 0x7f && c <= 0x9f
		if control {
			fe := wantFieldError(t, err, "id", 0)
			if !strings.Contains(fe.Reason, "byte 2") {
				t.Errorf("ValidateID with %U: %v, want the position of the character", c, fe)
			}
		} else if err != nil {
			t.Errorf("ValidateID with %U = %v", c, err)
		}
	}
	wantFieldError(t, ValidateID(""), "id", 0)
	wantFieldError(t, ValidateID(strings.Repeat("€", 85)+"ab"), "id", MaxID)
}

func TestValidateReportsTheFirstField(t *testing.T) {
	long := strings.Repeat("x", MaxContent+1)
	p := Post{ID: long, Title: long, Content: long, Author: long}
	wantFieldError(t, p.Validate(), "id", MaxID)
	p.ID = "i"
	wantFieldError(t, p.Validate(), "title", MaxTitle)
	p.Title = "t"
	wantFieldError(t, p.Validate(), "content", MaxContent)
	p.Content = ""
	wantFieldError(t, p.Validate(), "author", MaxAuthor)
}

// awkward has characters that an encoder may handle wrongly.
var awkward = []rune("aZ0 \"\\/<>&'\b\f\n\r\t\x00\x01\x1f\x7f\u0080\u009fé\u07ff\u0800€\u2027\u2028\u2029\ud7ff\ue000\ufffd\ufeff\uffff\U00010000😀\U0010ffff")

func randomText(r *rand.Rand, atMost int) string {
	n := r.IntN(atMost + 1)
	var b strings.Builder
	for {
		c := awkward[r.IntN(len(awkward))]
		if r.IntN(8) == 0 {
			c = rune(r.IntN(0x110000))
		}
		if s := string(c); b.Len()+len(s) > n { // a surrogate becomes U+FFFD
			return b.String()
		} else {
			b.WriteString(s)
		}
	}
}

// randomPost returns a valid post.
func randomPost(r *rand.Rand) Post {
	p := Post{
		ID:      randomText(r, MaxID),
		Title:   "t" + randomText(r, MaxTitle-1),
		Content: randomText(r, 4096),
		Author:  randomText(r, MaxAuthor),
	}
	if ValidateID(p.ID) != nil { // nearly always, because of a control character
		p.ID = "id" + strings.Repeat("é", r.IntN(MaxID/2))
	}
	return p
}
