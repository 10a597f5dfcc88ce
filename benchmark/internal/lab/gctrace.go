package lab

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"time"
)

// Collections summarizes the garbage collections that GODEBUG=gctrace=1 logs.
type Collections struct {
	Count  int
	Pauses []time.Duration // two for each collection, unsorted
	CPU    time.Duration
}

// ParseCollections reads the lines of a log such as
//
//	gc 7 @3.1s 1%: 0.05+8.1+0.02 ms clock, 0.05+0.1/8.1/0+0.02 ms cpu, 4->4->2 MB, ...
//
// The first and the third clock time are pauses.
func ParseCollections(log []byte) Collections {
	var c Collections
	for lines := bufio.NewScanner(bytes.NewReader(log)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[0] != "gc" || !strings.HasPrefix(fields[6], "clock") {
			continue
		}
		clock, ok := milliseconds(fields[4], "+")
		cpu, known := milliseconds(fields[7], "+/")
		if !ok || !known || len(clock) != 3 {
			continue
		}
		c.Count++
		c.Pauses = append(c.Pauses, clock[0], clock[2])
		for _, d := range cpu {
			c.CPU += d
		}
	}
	return c
}

func milliseconds(text, separators string) (all []time.Duration, ok bool) {
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		ms, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, false
		}
		all = append(all, time.Duration(ms*float64(time.Millisecond)))
	}
	return all, true
}
