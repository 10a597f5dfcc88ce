package post

import (
	"strings"
	"testing"
	"time"
)

const (
	someHex = "00112233445566778899aabbccddeeff"
	someTag = `"` + someHex + `"`
)

func TestParseETag(t *testing.T) {
	sum, ok := ParseETag(someTag)
	if !ok || sum != [16]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff} {
		t.Fatalf("ParseETag(%s) = %x, %v", someTag, sum, ok)
	}
	if got := string(AppendETag([]byte("ETag: "), sum)); got != "ETag: "+someTag {
		t.Errorf("AppendETag = %s", got)
	}
	for _, s := range []string{
		"", `"`, `""`, "*", someHex, "W/" + someTag, " " + someTag, someTag + " ", someTag + "," + someTag,
		`'` + someHex + `'`, `"` + someHex, someHex + `"`, `"` + someHex[1:] + `"`, `"` + someHex + `0"`,
		strings.ToUpper(someTag), strings.Replace(someTag, "0", "g", 1), strings.Replace(someTag, "0", "/", 1),
		strings.Replace(someTag, "0", ":", 1), strings.Replace(someTag, "00", "é", 1),
	} {
		if sum, ok := ParseETag(s); ok || sum != [16]byte{} {
			t.Errorf("ParseETag(%s) = %x, %v; want it rejected", s, sum, ok)
		}
	}
}

func TestETagOfInvalidBodies(t *testing.T) {
	tail := `,"hash":` + someTag + `}`
	if got := ETag(tail); got != someTag {
		t.Fatalf("ETag of a bare tail = %q, want %q", got, someTag)
	}
	for n := range tail {
		if got := ETag(tail[:n]); got != "" {
			t.Errorf("ETag(%q) = %q", tail[:n], got)
		}
		if got := ETag(tail[n+1:]); got != "" {
			t.Errorf("ETag(%q) = %q", tail[n+1:], got)
		}
		for _, c := range []string{"g", "`", ":", "/", "F", " ", "\x00", "\xff"} { // the neighbors of the hex digits, and others
			changed := tail[:n] + c + tail[n+1:]
			if got := ETag(changed); got != "" && changed != tail {
				t.Errorf("ETag(%q) = %q", changed, got)
			}
		}
	}
	for _, body := range []string{tail + "\n", strings.Replace(tail, "}", " }", 1), strings.ToUpper(tail), strings.ReplaceAll(tail, "f", "F")} {
		if got := ETag(body); got != "" {
			t.Errorf("ETag(%q) = %q", body, got)
		}
	}
}

// The content of a field is never mistaken for the hash.
func TestETagCannotBeForged(t *testing.T) {
	forged := `,"hash":` + someTag + `}`
	p := Post{ID: forged, Title: forged, Content: forged, Author: forged}
	e := checkEncoded(t, p, time.Unix(0, 1))
	if got := ETag(string(e.Body)); got == someTag {
		t.Errorf("ETag = %s, which came from a field", got)
	}
}

func TestETagAllocatesNothing(t *testing.T) {
	e := benchPost(t).Encode(benchTime)
	body := string(e.Body)
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		tag := ETag(body)
		if sum, ok := ParseETag(tag); !ok || sum != e.Sum {
			t.Fatal("wrong sum")
		}
		if string(AppendETag(buf, e.Sum)) != tag {
			t.Fatal("wrong tag")
		}
	}); n != 0 {
		t.Errorf("ETag, ParseETag and AppendETag allocate %v times, want 0", n)
	}
}

func FuzzETag(f *testing.F) {
	for _, s := range []string{"", `"`, someTag, "W/" + someTag, `,"hash":` + someTag + `}`, `{"id":"i","hash":` + someTag + `}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		// AppendETag is the inverse of ParseETag.
		sum, ok := ParseETag(s)
		if back := string(AppendETag(nil, sum)); ok != (back == s) {
			t.Errorf("ParseETag(%q) = %x, %v, which AppendETag turns into %s", s, sum, ok, back)
		}
		// If ETag returns a tag, it is valid and at the end of the body.
		if tag := ETag(s); tag != "" {
			if _, ok := ParseETag(tag); !ok || !strings.HasSuffix(s, `,"hash":`+tag+`}`) {
				t.Errorf("ETag(%q) = %q", s, tag)
			}
		}
		// A hash member after any s is found.
		if want := `"` + someHex + `"`; ETag(s+`,"hash":`+want+`}`) != want {
			t.Errorf("no ETag after %q", s)
		}
	})
}
