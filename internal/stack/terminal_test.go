package stack

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// fullPipe returns a pipe that takes no more, as a terminal after Ctrl-S. The test closes both ends.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	filling := []byte(strings.Repeat("-", 1023) + "\n")
	for err == nil {
		_, err = w.Write(filling)
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return r, w
}

func TestTerminalPassesLinesOn(t *testing.T) {
	var out strings.Builder
	term := newTerminal(&out)
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(term, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	term.close()
	if out.String() != want.String() {
		t.Errorf("got %q, want %q", out.String(), want.String())
	}
}

func TestHeldTerminalDropsLinesAndCountsThem(t *testing.T) {
	r, w := fullPipe(t)
	term := newTerminal(w)
	line := strings.Repeat("x", 99) + "\n"
	const lines = 2 * maxTerminalQueue / 100
	for range lines {
		io.WriteString(term, line) // would block here
	}
	term.close() // as this would

	if err := r.SetReadDeadline(time.Now().Add(testWait)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(r)
	passed, missing := 0, 0
	for passed+missing < lines && in.Scan() {
		var n int
		if in.Text()+"\n" == line {
			passed++
		} else if _, err := fmt.Sscanf(in.Text(), "(%d lines dropped", &n); err == nil {
			missing += n
		} else if !strings.HasPrefix(in.Text(), "---") { // the filling
			t.Errorf("a line was changed: %q", in.Text())
		}
	}
	if passed+missing != lines || passed < lines/4 || missing == 0 {
		t.Errorf("%d lines passed and %d are said to be missing, want %d together (%v)", passed, missing, lines, in.Err())
	}
}
