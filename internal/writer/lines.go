package writer

import (
	"bufio"
	"errors"
	"io"
)

// lineReader cuts a stream into lines, in memory that is bounded by its limit.
type lineReader struct {
	r     *bufio.Reader
	limit int    // bytes of a line
	long  []byte // a line that does not fit into the buffer of r
}

// readAhead is the size of the pieces that are read from the client, in bytes.
const readAhead = 256 << 10

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, readAhead), limit: limit}
}

// next returns a line without its "\n"; the last line needs none. The line is valid until the next
// call. A line over the limit is skipped to its end: tooLong is set and line is empty. The error is
// io.EOF at the end; where the stream breaks off, its incomplete last line is not returned.
func (l *lineReader) next() (line []byte, tooLong bool, err error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		ended := err == nil
		if ended {
			part = part[:len(part)-1]
		}
		if err != nil && !full && (!errors.Is(err, io.EOF) || len(part)+len(l.long) == 0 && !tooLong) {
			return nil, false, err
		}
		if tooLong = tooLong || len(l.long)+len(part) > l.limit; tooLong {
			l.long = nil
		} else if full || len(l.long) > 0 {
			l.long = append(l.long, part...)
		} else {
			return part, false, nil
		}
		if !full {
			return l.long, tooLong, nil
		}
	}
}
