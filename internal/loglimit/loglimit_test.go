package loglimit

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	var lines []string
	log := func(msg string, args ...any) { lines = append(lines, fmt.Sprint(append([]any{msg}, args...)...)) }
	var l Limit
	now := time.Unix(1e9, 0)
	for range 3 {
		l.Log(log, now, "a")
	}
	l.Log(log, now.Add(interval), "b")
	l.Log(log, now.Add(2*interval), "c")
	if got, want := strings.Join(lines, " "), "a bomitted_lines2 c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
