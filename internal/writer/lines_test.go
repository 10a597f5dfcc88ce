package writer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// readLines reads all lines. It returns "!" in the place of a line that is too long.
func readLines(r io.Reader, limit int) (lines []string, err error) {
	l := newLineReader(r, limit)
	for {
		line, tooLong, err := l.next()
		if err != nil {
			return lines, err
		}
		if tooLong {
			line = []byte("!")
		}
		lines = append(lines, string(line))
	}
}

func TestLineReader(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const limit = 3 * readAhead
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"one", "a\n", []string{"a"}},
		{"no end", "a", []string{"a"}},
		{"empty", "\n\na\n\n", []string{"", "", "a", ""}},
		{"carriage return", "a\r\nb", []string{"a\r", "b"}},
		{"buffer", x(readAhead-1) + "\nb", []string{x(readAhead - 1), "b"}},
		{"over the buffer", x(readAhead) + "\nb", []string{x(readAhead), "b"}},
		{"limit", x(limit) + "\nb", []string{x(limit), "b"}},
		{"limit at the end", x(limit), []string{x(limit)}},
		{"over the limit", "a\n" + x(limit+1) + "\nb", []string{"a", "!", "b"}},
		{"over the limit at the end", "a\n" + x(limit+1), []string{"a", "!"}},
		{"far over the limit", x(7*limit) + "\n" + x(limit) + "\nb\n", []string{"!", x(limit), "b"}},
	} {
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "halves": iotest.HalfReader(strings.NewReader(tt.in)),
			"with the end": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			got, err := readLines(r, limit)
			if !errors.Is(err, io.EOF) || !slices.Equal(got, tt.want) {
				t.Errorf("%s, %s: %d lines %.100q, %v, want %d", tt.name, name, len(got), got, err, len(tt.want))
			}
		}
	}
}

// TestLineReaderReadError has a stream that fails: the reader returns the error and no part of a line.
func TestLineReaderReadError(t *testing.T) {
	broken := errors.New("broken")
	for _, in := range []string{"", "a\n", "a\nb", "a\n" + strings.Repeat("x", readAhead+1), "a\n" + strings.Repeat("x", 5*readAhead)} {
		got, err := readLines(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), 3*readAhead)
		if !errors.Is(err, broken) || len(got) > 1 {
			t.Errorf("%.5q of %d bytes: %d lines, %v", in, len(in), len(got), err)
		}
	}
}

// TestLineReaderDropsLongLines reads a line that is far too long: the reader must not keep it.
func TestLineReaderDropsLongLines(t *testing.T) {
	l := newLineReader(io.MultiReader(bytes.NewReader(make([]byte, 64*readAhead)), strings.NewReader("\na\n")), 2*readAhead)
	if _, tooLong, err := l.next(); !tooLong || err != nil {
		t.Fatal(tooLong, err)
	}
	if cap(l.long) != 0 {
		t.Errorf("the reader keeps %d bytes of a line that is too long", cap(l.long))
	}
	if line, tooLong, err := l.next(); string(line) != "a" || tooLong || err != nil {
		t.Errorf("%q, %v, %v", line, tooLong, err)
	}
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\n\nb"), 1)
	f.Add([]byte("aaa\nb\n"), 2)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		limit = min(max(limit, 0), 1<<20)
		var want []string
		if len(in) > 0 {
			for _, line := range strings.Split(strings.TrimSuffix(string(in), "\n"), "\n") {
				if len(line) > limit {
					line = "!"
				}
				want = append(want, line)
			}
		}
		got, err := readLines(iotest.OneByteReader(bytes.NewReader(in)), limit)
		if !errors.Is(err, io.EOF) || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%q, limit %d: %q, %v, want %q", in, limit, got, err, want)
		}
	})
}
