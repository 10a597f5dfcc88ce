package post

import (
	stdjson "encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// marshalRequest encodes p with the standard library, so that the tests do not
// depend on the encoder under test. p must be valid UTF-8.
func marshalRequest(tb testing.TB, p Post) []byte {
	tb.Helper()
	b, err := stdjson.Marshal(map[string]string{"id": p.ID, "title": p.Title, "content": p.Content, "author": p.Author})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDecode(t *testing.T) {
	full := Post{ID: "i", Title: "t", Content: "c", Author: "a"}
	tests := []struct {
		name, data string
		want       Post
	}{
		{"all members", `{"id":"i","title":"t","content":"c","author":"a"}`, full},
		{"any order", `{"author":"a","content":"c","title":"t","id":"i"}`, full},
		{"white space", " \t\r\n{ \"id\" : \"i\" ,\n\"title\":\"t\" , \"content\":\"c\", \"author\":\"a\" }\r\n\t ", full},
		{"required members only", `{"id":"i","title":"t"}`, Post{ID: "i", Title: "t"}},
		{"empty optional members", `{"id":"i","title":"t","content":"","author":""}`, Post{ID: "i", Title: "t"}},
		{"escaped member names", `{"\u0069d":"i","titl\u0065":"t"}`, Post{ID: "i", Title: "t"}},
		{"escapes", `{"id":"\u00e9\ud83d\ude00\/","title":"\"\\\b\f\n\r\t\u0000"}`, Post{ID: "é😀/", Title: "\"\\\b\f\n\r\t\x00"}},
		{"raw multi-byte", `{"id":"é😀","title":"€"}`, Post{ID: "é😀", Title: "€"}},
		{"null optional members", `{"id":"i","title":"t","content":null,"author":null}`, Post{ID: "i", Title: "t"}},
		{"as served by a reader", string(full.Encode(time.Now()).Body), full},
		{"as served by an older reader", `{"id":"i","title":"t","content":"c","author":"a","timestamp":1735787045000000006,"hash":"f9bc5b4b6c153c7958ff5eeb2140b68f"}`, full},
		{"timestamp and hash of any scalar", `{"hash":null,"timestamp":"1","id":"i","title":"t"}`, Post{ID: "i", Title: "t"}},
		{"meaningless timestamp", `{"hash":"","timestamp":-1e999,"id":"i","title":"t"}`, Post{ID: "i", Title: "t"}},
		{"byte order mark", "\ufeff" + `{"id":"i","title":"t"}`, Post{ID: "i", Title: "t"}},
		{"byte order mark and white space", "\ufeff\r\n " + `{"id":"i","title":"t"}`, Post{ID: "i", Title: "t"}},
		{"hash and numbers inside strings", `{"id":"1","title":"{\"id\":2}"}`, Post{ID: "1", Title: `{"id":2}`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]byte(tt.data))
			if err != nil || got != tt.want {
				t.Errorf("Decode = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	const it = `"id":"i","title":"t"`
	tests := []struct {
		name, data string
		field      string
		says       string
	}{
		{"nothing", ``, "", "ends before"},
		{"white space", " \n", "", "ends before"},
		{"null", `null`, "", "not null"},
		{"string", `"id"`, "", "not a string"},
		{"number", `1`, "", "not a number"},
		{"boolean", `true`, "", "not a boolean"},
		{"array", `[{` + it + `}]`, "", "not an array"},
		{"stray bracket", `]`, "", "not a stray ]"},
		{"not JSON", `id=i&title=t`, "", "not valid JSON"},
		{"byte order mark alone", "\ufeff", "", "ends before"},
		{"two byte order marks", "\ufeff\ufeff{" + it + "}", "", "not valid JSON"},
		{"byte order mark after the brace", "{\ufeff" + it + "}", "", "not valid JSON"},
		{"comment", `{` + it + `/* */}`, "", "not valid JSON"},
		{"single quotes", `{'id':'i'}`, "", "not valid JSON"},
		{"two objects", `{` + it + `}{` + it + `}`, "", "not valid JSON"},
		{"trailing data", `{` + it + `} x`, "", "not valid JSON"},
		{"trailing comma", `{` + it + `,}`, "", "not valid JSON"},
		{"leading comma", `{,` + it + `}`, "", "not valid JSON"},
		{"missing comma", `{"id":"i" "title":"t"}`, "", "not valid JSON"},
		{"missing colon", `{"id" "i","title":"t"}`, "id", "not valid JSON"},
		{"missing value", `{"id":,"title":"t"}`, "id", "not valid JSON"},
		{"value left out", `{"title":"t","id":}`, "id", "not a stray }"},
		{"number as name", `{1:"i"}`, "", "not valid JSON"},
		{"closed by bracket", `{` + it + `]`, "", "not valid JSON"},

		{"id missing", `{"title":"t"}`, "id", "missing"},
		{"title missing", `{"id":"i"}`, "title", "missing"},
		{"both missing", `{}`, "id", "missing"},
		{"id empty", `{"id":"","title":"t"}`, "id", "empty"},
		{"id null", `{"id":null,"title":"t"}`, "id", "not null"},
		{"id number", `{"id":1,"title":"t"}`, "id", "not a number"},
		{"id negative number", `{"id":-1,"title":"t"}`, "id", "not a number"},
		{"title boolean", `{"id":"i","title":false}`, "title", "not a boolean"},
		{"title null", `{"id":"i","title":null}`, "title", "not null"},
		{"content number", `{` + it + `,"content":1}`, "content", "not a number"},
		{"content object", `{` + it + `,"content":{}}`, "content", "not an object"},
		{"author array", `{` + it + `,"author":["a"]}`, "author", "not an array"},
		{"id with control character", `{"id":"a\u0085","title":"t"}`, "id", "U+0085"},

		{"unknown member", `{` + it + `,"tags":"x"}`, "tags", "not a known member"},
		{"unknown member, any value", `{` + it + `,"tags":[[{"a":1e999}]]}`, "tags", "not a known member"},
		{"nested timestamp", `{` + it + `,"timestamp":[1]}`, "timestamp", "cannot be an array"},
		{"nested hash", `{` + it + `,"hash":{}}`, "hash", "cannot be an object"},
		{"two timestamps", `{` + it + `,"timestamp":1,"timestamp":1}`, "timestamp", "more than once"},
		{"upper-case hash", `{` + it + `,"Hash":"1"}`, "Hash", "not a known member"},
		{"upper case", `{"ID":"i","title":"t"}`, "ID", "lower case"},
		{"Kelvin sign is not k", "{" + it + ",\"\u212a\":\"\"}", "\u212a", "not a known member"},
		{"empty name", `{` + it + `,"":"x"}`, "", "empty name"},

		{"duplicate", `{` + it + `,"id":"i"}`, "id", "more than once"},
		{"duplicate of an empty member", `{` + it + `,"author":"","author":"a"}`, "author", "more than once"},
		{"duplicate in another spelling", `{` + it + `,"\u0069d":"i"}`, "id", "more than once"},

		{"raw control character", "{\"id\":\"i\",\"title\":\"a\nb\"}", "title", "not valid JSON"},
		{"invalid escape", `{"id":"i","title":"\x41"}`, "title", "not valid JSON"},
		{"invalid UTF-8", "{\"id\":\"i\",\"title\":\"a\xff\"}", "title", "invalid UTF-8"},
		{"invalid UTF-8 in id", "{\"id\":\"\xc0\xaf\"}", "id", "invalid UTF-8"},
		{"encoded surrogate", "{\"id\":\"i\",\"title\":\"\xed\xa0\x80\"}", "title", "invalid UTF-8"},
		{"lone high surrogate", `{"id":"i","title":"\ud83d"}`, "title", "surrogate"},
		{"high surrogate and text", `{"id":"i","title":"\ud83dabcdefg"}`, "title", "surrogate"},
		{"two high surrogates", `{"id":"i","title":"\ud83d\ud83d"}`, "title", "surrogate"},
		{"lone low surrogate", `{"id":"i","title":"\ude00"}`, "title", "surrogate"},
		{"lone surrogate in a name", `{` + it + `,"\ud83d":""}`, "", "surrogate"},
		{"invalid UTF-8 in a name", "{" + it + ",\"\xff\":\"\"}", "", "invalid UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Decode([]byte(tt.data))
			if err == nil {
				t.Fatalf("Decode = %+v, want an error", p)
			}
			if p != (Post{}) {
				t.Errorf("Decode = %+v with an error, want the zero Post", p)
			}
			fe := wantFieldError(t, err, tt.field, 0)
			if !strings.Contains(fe.Error(), tt.says) {
				t.Errorf("error %q, want one that contains %q", fe, tt.says)
			}
		})
	}
}

func TestDecodeTruncated(t *testing.T) {
	data := `{"id":"é\u00e9","title":"😀\ud83d\ude00","content":"a\\b\"\n€","author":"\u0000a"}`
	data = strings.ReplaceAll(data, "\n", `\n`)
	if _, err := Decode([]byte(data)); err != nil {
		t.Fatalf("the whole request: %v", err)
	}
	for n := range len(data) {
		if p, err := Decode([]byte(data[:n])); err == nil {
			t.Errorf("truncated to %d bytes: Decode = %+v, want an error", n, p)
		} else if _, ok := err.(*FieldError); !ok {
			t.Errorf("truncated to %d bytes: error is a %T, want a *FieldError", n, err)
		}
	}
}

// The longest JSON of a valid post, with every byte escaped, fits into MaxBody
// and is decoded.
func TestMaxBodyHoldsTheLargestPost(t *testing.T) {
	escapes := make([]string, 0x80)
	for c := range escapes {
		escapes[c] = fmt.Sprintf(`\u%04x`, c)
	}
	escaped := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteString(escapes[c])
		}
		return `"` + b.String() + `"`
	}
	want := Post{
		ID:      strings.Repeat("i", MaxID),
		Title:   strings.Repeat("\x01", MaxTitle),
		Content: strings.Repeat("\x00", MaxContent),
		Author:  strings.Repeat("\x7f", MaxAuthor),
	}
	var b strings.Builder
	sep := "{\r\n\t"
	for _, m := range []struct{ name, value string }{{"id", want.ID}, {"title", want.Title}, {"content", want.Content}, {"author", want.Author}} {
		b.WriteString(sep + escaped(m.name) + " : " + escaped(m.value))
		sep = ",\r\n\t"
	}
	b.WriteString("\r\n}\r\n")
	data := b.String()
	if len(data) > MaxBody {
		t.Fatalf("the request has %d bytes, MaxBody is %d", len(data), MaxBody)
	}
	data += strings.Repeat(" ", MaxBody-len(data))
	if got, err := Decode([]byte(data)); err != nil || got != want {
		t.Fatalf("Decode of the largest request: %v", err)
	}
	_, err := Decode([]byte(data + " "))
	wantFieldError(t, err, "", MaxBody)
}

func TestDecodeRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		want := randomPost(r)
		data := marshalRequest(t, want)
		if got, err := Decode(data); err != nil || got != want {
			t.Fatalf("Decode(%q) = %+v, %v", data, got, err)
		}
	}
}

func TestDecodeSharesNoMemory(t *testing.T) {
	data := []byte(`{"id":"i","title":"t","content":"c","author":"a"}`)
	got, err := Decode(data)
	clear(data)
	if want := (Post{"i", "t", "c", "a"}); err != nil || got != want {
		t.Errorf("after the input was overwritten, the post is %+v, %v; want %+v", got, err, want)
	}
}

// allocated returns the number of bytes that f allocates: the minimum of a few
// runs, because the runtime allocates too.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// The size of the input bounds the memory that Decode allocates, whatever the
// content.
func TestDecodeHostileInputAllocatesLittle(t *testing.T) {
	const n = 1 << 20
	many := func() string {
		var b strings.Builder
		b.WriteString(`{"id":"i"`)
		for i := range n / 16 {
			fmt.Fprintf(&b, `,"member%d":""`, i)
		}
		return b.String() + "}"
	}
	// Multiples of the input size that Decode may allocate: nothing if it does not
	// copy the large value, else one copy to unescape it and one for the string.
	const none, strs = 0, 3
	tests := []struct {
		name, data string
		factor     int
		ok         bool
	}{
		{"arrays", strings.Repeat("[", n), none, false},
		{"objects", strings.Repeat(`{"id":`, n/6), none, false},
		{"arrays in a member", `{"id":` + strings.Repeat("[", n), none, false},
		{"arrays in an unknown member", `{"x":` + strings.Repeat("[", n), none, false},
		{"number", strings.Repeat("9", n), none, false},
		{"number in a member", `{"id":` + strings.Repeat("9", n) + `}`, none, false},
		{"exponent", `{"title":1e` + strings.Repeat("9", n) + `}`, none, false},
		{"number in an ignored member", `{"timestamp":` + strings.Repeat("9", n) + `,"id":"i","title":"t"}`, none, true},
		{"string in an ignored member", `{"hash":"` + strings.Repeat(`\u0000`, n/6) + `","id":"i","title":"t"}`, none, true},
		{"arrays in an ignored member", `{"timestamp":` + strings.Repeat("[", n), none, false},
		{"many members", many(), none, false},
		{"white space", strings.Repeat(" ", n), none, false},
		{"over MaxBody", strings.Repeat(" ", MaxBody+1), none, false},
		{"long id", `{"id":"` + strings.Repeat("a", n) + `","title":"t"}`, strs, false},
		{"long name", `{"` + strings.Repeat("a", n) + `":""}`, none, false},
		{"long escaped name", `{"` + strings.Repeat(`\u0000`, n/6) + `":""}`, none, false},
		{"long name, then cut", `{"` + strings.Repeat("~/", n/2) + `"`, none, false},
		{"long name of quotes", `{"` + strings.Repeat(`\"`, n/2) + `":""}`, none, false},
		{"long second name", `{"id":"i"` + strings.Repeat(" ", n) + `,"` + strings.Repeat("a", n) + `":""}`, none, false},
		{"string without end", `{"content":"` + strings.Repeat(`\\`, n/2), strs, false},
		{"long escaped title", `{"id":"i","title":"` + strings.Repeat(`\u0000`, n/6) + `"}`, strs, false},
		{"escaped content", `{"id":"i","title":"t","content":"` + strings.Repeat(`\n`, n/2) + `"}`, strs, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := []byte(tt.data)
			if _, err := Decode(data); (err == nil) != tt.ok {
				t.Fatalf("Decode = %v, want success %v", err, tt.ok)
			}
			limit := uint64(tt.factor*len(data) + 16<<10)
			if got := allocated(func() { Decode(data) }); got > limit {
				t.Errorf("decoding %d bytes allocated %d, want at most %d", len(data), got, limit)
			} else {
				t.Logf("decoding %d bytes allocated %d", len(data), got)
			}
		})
	}
}

// A name is decoded if it has at most maxName bytes, including its quotes.
func TestDecodeNameLength(t *testing.T) {
	for _, unit := range []string{"a", "é", "😀", `\n`, `\"`, `\\`, `\u0000`} {
		for n := range 100 {
			raw := strings.Repeat("x", n%len(unit)) + strings.Repeat(unit, n/len(unit))
			for _, start := range []string{`{`, " {\n\t ", `{"id":"i","title":"t",`, "{\"id\":\"i\"\n,\r\n"} {
				_, err := Decode([]byte(start + `"` + raw + `":"value"}`))
				var name string
				if err := stdjson.Unmarshal([]byte(`"`+raw+`"`), &name); err != nil {
					t.Fatal(err)
				}
				says := "not a known member"
				if name == "" {
					says = "empty name"
				}
				if n+len(`""`) > maxName {
					name, says = "", "member name of more than 64 bytes"
				}
				if fe, ok := err.(*FieldError); !ok || fe.Field != name || !strings.Contains(fe.Reason, says) {
					t.Fatalf("a name of %d bytes made of %s: %v", n, unit, err)
				}
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range goldenCases(f) {
		f.Add(c.request)
	}
	for _, s := range []string{`{}`, `{"id":"i","title":"\ud800"}`, `{"id":"i","title":"t","id":""}`, `[[[`, `{"id":1e9}`, "{\"id\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			fe, ok := err.(*FieldError)
			if !ok {
				t.Fatalf("error is a %T: %v", err, err)
			}
			if p != (Post{}) || fe.TooLarge != (fe.Limit > 0) || len(fe.Error()) > 1000 {
				t.Fatalf("Decode = %+v, %+v", p, fe)
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("decoded %+v, which is not valid: %v", p, err)
		}
		if again, err := Decode(marshalRequest(t, p)); err != nil || again != p {
			t.Fatalf("decoded %+v, then %+v, %v", p, again, err)
		}
		checkEncoded(t, p, time.Unix(0, int64(len(data))*1e17))
	})
}
