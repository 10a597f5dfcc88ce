package httpkit

import (
	"slices"
	"strings"
	"testing"
)

// tags returns the tags of a list. A weak tag keeps its prefix W/.
func tags(list string) ([]string, error) {
	var all []string
	rest := []byte(list)
	for {
		tag, weak, next, err := NextETag(rest)
		if err != nil || len(tag) == 0 {
			return all, err
		}
		text := string(tag)
		if weak {
			text = "W/" + text
		}
		all = append(all, text)
		rest = next
	}
}

func TestNextETag(t *testing.T) {
	tests := []struct {
		list string
		want []string
		bad  bool // the list is malformed after the tags in want
	}{
		{`"a"`, []string{`"a"`}, false},
		{`""`, []string{`""`}, false},
		{`W/"a"`, []string{`W/"a"`}, false},
		{`"a", W/"b" ,"c"`, []string{`"a"`, `W/"b"`, `"c"`}, false},
		{`"a","b"`, []string{`"a"`, `"b"`}, false},
		{" \t\"a\"\t ", []string{`"a"`}, false},
		{`, ,"a",, "b" ,`, []string{`"a"`, `"b"`}, false},
		{`"a,b"`, []string{`"a,b"`}, false},
		{`"a\"`, []string{`"a\"`}, false}, // no escapes in an entity tag
		{"\"\xff\x80\"", []string{"\"\xff\x80\""}, false},
		{``, nil, false},
		{` , `, nil, false},
		{`a`, nil, true},
		{`*`, nil, true},
		{`"a`, nil, true},
		{`"`, nil, true},
		{`W/`, nil, true},
		{`W"a"`, nil, true},
		{`w/"a"`, nil, true},
		{`W/ "a"`, nil, true},
		{`"a b"`, nil, true},
		{"\"a\x7f\"", nil, true},
		{"\"a\x00\"", nil, true},
		{`"a" "b"`, nil, true},
		{`"a"b`, nil, true},
		{`"a", *`, []string{`"a"`}, true},
		{`"a", b, "c"`, []string{`"a"`}, true},
	}
	for _, tt := range tests {
		got, err := tags(tt.list)
		if !slices.Equal(got, tt.want) || (err != nil) != tt.bad {
			t.Errorf("%q: got %q, %v; want %q and an error: %v", tt.list, got, err, tt.want, tt.bad)
		}
	}
}

func TestAnyETag(t *testing.T) {
	for header, want := range map[string]bool{"*": true, " *\t": true, "": false, "**": false, `*, "a"`: false, `"*"`: false} {
		if got := AnyETag([]byte(header)); got != want {
			t.Errorf("AnyETag(%q) = %v, want %v", header, got, want)
		}
	}
}

// FuzzNextETag checks that parsing a list terminates, that its tags are valid, and that a list of these tags
// is parsed to the same tags.
func FuzzNextETag(f *testing.F) {
	for _, list := range []string{`"a"`, `W/"a", "b"`, `,, "a" ,`, `"a" "b"`, `W/`, `"`, `*`, "\"\xff\""} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		got, _ := tags(list)
		for _, tag := range got {
			bare := strings.TrimPrefix(tag, "W/")
			if len(bare) < 2 || strings.Count(bare, `"`) != 2 || strings.ContainsAny(bare, " \t\x00\x7f") || !strings.Contains(list, tag) {
				t.Errorf("%q: invalid tag %q", list, tag)
			}
		}
		again, err := tags(strings.Join(got, ","))
		if err != nil || !slices.Equal(again, got) {
			t.Errorf("%q: tags %q, parsed again %q, %v", list, got, again, err)
		}
	})
}
