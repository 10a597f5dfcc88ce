package post

import (
	"bytes"
	"crypto/md5"
	stdjson "encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the encoded bodies in testdata")

// checkEncoded checks every promise of Encode for p. It parses the JSON with the
// standard library.
func checkEncoded(t *testing.T, p Post, now time.Time) Encoded {
	t.Helper()
	e := p.Encode(now)

	// Pointers distinguish absent members from empty ones.
	var got struct {
		ID, Title, Content, Author, Hash *string
		Timestamp                        *int64
	}
	dec := stdjson.NewDecoder(bytes.NewReader(e.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("body %q: %v", e.Body, err)
	}
	if dec.InputOffset() != int64(len(e.Body)) {
		t.Fatalf("body %q continues after the object", e.Body)
	}
	if got.ID == nil || got.Title == nil || got.Content == nil || got.Author == nil || got.Timestamp == nil || got.Hash == nil {
		t.Fatalf("body %q lacks a member", e.Body)
	}
	if stored := (Post{*got.ID, *got.Title, *got.Content, *got.Author}); stored != p || *got.Timestamp != now.UnixMilli() {
		t.Fatalf("encoded %+v at %d, stored %+v at %d", p, now.UnixMilli(), stored, *got.Timestamp)
	}

	tail := `,"hash":"` + *got.Hash + `"}`
	bare, ok := strings.CutSuffix(string(e.Body), tail)
	if !ok || len(*got.Hash) != 32 || strings.ToLower(*got.Hash) != *got.Hash {
		t.Fatalf("body %q does not end in its hash member %q", e.Body, tail)
	}
	if sum := md5.Sum([]byte(bare + "}")); sum != e.Sum || fmt.Sprintf("%x", sum) != *got.Hash {
		t.Fatalf("hash %s, sum %x, want %x", *got.Hash, e.Sum, sum)
	}
	if tag := ETag(string(e.Body)); tag != string(AppendETag(nil, e.Sum)) || tag != `"`+*got.Hash+`"` {
		t.Fatalf("ETag %s of a body with the hash %s", tag, *got.Hash)
	}
	if err := Verify(e.Body); err != nil {
		t.Fatal(err)
	}
	if again, err := Remarshal(e.Body); err != nil || !bytes.Equal(again, e.Body) {
		t.Fatalf("remarshalled %q to %q, %v", e.Body, again, err)
	}
	if again := p.Encode(now); again.Sum != e.Sum || !bytes.Equal(again.Body, e.Body) {
		t.Fatalf("encoded again: %q, then %q", e.Body, again.Body)
	}
	// The buffer was allocated with the right size. Only the number of digits of
	// the timestamp is estimated.
	if spare := cap(e.Body) - len(e.Body); spare >= maxTimestamp {
		t.Fatalf("a body of %d bytes has %d to spare", len(e.Body), spare)
	}
	return e
}

type goldenCase struct {
	path    string // path of the file with the body
	request []byte
}

func goldenCases(tb testing.TB) []goldenCase {
	tb.Helper()
	paths, err := filepath.Glob("testdata/*.request.json")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no requests in testdata: %v", err)
	}
	var cases []goldenCase
	for _, path := range paths {
		request, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		cases = append(cases, goldenCase{strings.Replace(path, ".request.", ".body.", 1), request})
	}
	return cases
}

// The stored bytes are a format: posts like these files must stay readable, and
// the encoding must not change by accident.
func TestGolden(t *testing.T) {
	now := time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range goldenCases(t) {
		t.Run(filepath.Base(c.path), func(t *testing.T) {
			p, err := Decode(c.request)
			if err != nil {
				t.Fatal(err)
			}
			got := checkEncoded(t, p, now).Body
			if *update {
				if err := os.WriteFile(c.path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(c.path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("encoded\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestEncodeRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		checkEncoded(t, randomPost(r), time.Unix(0, r.Int64()))
	}
	for _, ns := range []int64{0, 1, -1, 1<<63 - 1, -1 << 63} {
		checkEncoded(t, randomPost(r), time.Unix(0, ns))
	}
}

// JavaScript and jq parse numbers as float64 and must write the timestamp back unchanged, or the hash would not match.
func TestTimestampSurvivesFloat64(t *testing.T) {
	body := Post{ID: "i", Title: "t"}.Encode(time.Now()).Body
	var parsed struct{ Timestamp float64 }
	if err := stdjson.Unmarshal(body, &parsed); err != nil {
		t.Fatal(err)
	}
	if again := fmt.Sprintf(`"timestamp":%.0f,`, parsed.Timestamp); parsed.Timestamp > 1<<53 || !bytes.Contains(body, []byte(again)) {
		t.Errorf("the timestamp of %s is written back as %s", body, again)
	}
}

// Older writers stored nanoseconds. Their posts are still valid.
func TestNanosecondsOfOlderWriters(t *testing.T) {
	body, err := os.ReadFile("testdata/nanoseconds.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(body); err != nil {
		t.Error(err)
	}
	if tag := ETag(string(body)); tag != `"f9bc5b4b6c153c7958ff5eeb2140b68f"` {
		t.Errorf("ETag %s", tag)
	}
	if again, err := Remarshal(body); err != nil || !bytes.Equal(again, body) {
		t.Errorf("remarshalled to %s, %v", again, err)
	}
}

func TestEncodeLargest(t *testing.T) {
	checkEncoded(t, Post{
		ID:      strings.Repeat(`"`, MaxID),
		Title:   strings.Repeat("\x01", MaxTitle),
		Content: strings.Repeat("\x00", MaxContent),
		Author:  strings.Repeat("\n", MaxAuthor),
	}, time.Unix(0, 1<<63-1))
}

// A character is escaped if and only if JSON requires it.
func TestEncodeEscapesNoMoreThanRequired(t *testing.T) {
	for c := range rune(0x3000) {
		if c >= 0xd800 && c <= 0xdfff {
			continue
		}
		e := checkEncoded(t, Post{ID: "i", Title: "t", Content: "<" + string(c) + ">"}, time.Unix(0, 0))
		must := c < ' ' || c == '"' || c == '\\'
		if raw := bytes.Contains(e.Body, []byte(`"<`+string(c)+`>"`)); raw == must {
			t.Errorf("%U: body %q, want it escaped: %v", c, e.Body, must)
		}
	}
}

func TestHashChangesWithTheBody(t *testing.T) {
	now := time.Unix(0, 1_700_000_000_000_000_000)
	p := Post{ID: "i", Title: "t", Content: "c", Author: "a"}
	seen := map[[16]byte]string{}
	for name, e := range map[string]Encoded{
		"the post":           p.Encode(now),
		"1 ms later":         p.Encode(now.Add(time.Millisecond)),
		"another id":         Post{"j", "t", "c", "a"}.Encode(now),
		"another title":      Post{"i", "u", "c", "a"}.Encode(now),
		"another content":    Post{"i", "t", "d", "a"}.Encode(now),
		"another author":     Post{"i", "t", "c", "b"}.Encode(now),
		"content and author": Post{"i", "t", "ca", ""}.Encode(now),
	} {
		if other, ok := seen[e.Sum]; ok {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		seen[e.Sum] = name
	}
	// The zone of now is not part of the bytes.
	if p.Encode(now).Sum != p.Encode(now.In(time.FixedZone("x", 3600))).Sum {
		t.Error("the hash depends on the time zone")
	}
}

func TestEncodeAllocatesOnce(t *testing.T) {
	for _, p := range []Post{
		benchPost(t),
		{ID: "i", Title: "t", Content: strings.Repeat("\x00\"é\n", 1000)},
	} {
		if n := testing.AllocsPerRun(100, func() { p.Encode(benchTime) }); n != 1 {
			t.Errorf("Encode allocates %v times, want 1", n)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	body := Post{ID: "i", Title: "t", Content: "c", Author: "a"}.Encode(time.Unix(0, 1)).Body
	for n := range len(body) {
		if Verify(body[:n]) == nil {
			t.Errorf("accepted a body truncated to %d of %d bytes", n, len(body))
		}
		changed := bytes.Clone(body)
		changed[n] ^= 1
		if Verify(changed) == nil {
			t.Errorf("accepted a body whose byte %d was changed: %s", n, changed)
		}
	}
	if Verify(append(body, '\n')) == nil {
		t.Error("accepted a body with an additional byte")
	}
}

func TestRemarshalRefuses(t *testing.T) {
	body := Post{ID: "i", Title: "t"}.Encode(time.Unix(0, 1)).Body
	for n := range len(body) {
		if b, err := Remarshal(body[:n]); err == nil {
			t.Errorf("remarshalled a body truncated to %d bytes to %q", n, b)
		}
	}
	if b, err := Remarshal(bytes.Replace(body, []byte("title"), []byte("other"), 1)); err == nil {
		t.Errorf("remarshalled a body with an unknown member to %q", b)
	}
}
