package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/test/pipetest"
)

func TestTerminalPassesLinesOn(t *testing.T) {
	var out strings.Builder
	term := NewTerminal(&out)
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(term, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	term.Close()
	if out.String() != want.String() {
		t.Errorf("got %q, want %q", out.String(), want.String())
	}
}

func TestHeldTerminalDropsLinesAndCountsThem(t *testing.T) {
	r, w := pipetest.Full(t)
	term := NewTerminal(w)
	line := strings.Repeat("x", 99) + "\n"
	const lines = 2 * maxTerminalQueue / 100
	for range lines {
		io.WriteString(term, line) // would block here
	}
	term.Close() // as this would

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
