package writer

import (
	"bufio"
	"errors"
	"io"
)

// lineReader splits a stream into lines. Its limit bounds the memory that it uses.
type lineReader struct {
	r     *bufio.Reader
	limit int    // maximum length of a line, in bytes
	long  []byte // current line, if it does not fit into the buffer of r
}

// readAhead is the size of the read buffer, in bytes.
const readAhead = 256 << 10

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, readAhead), limit: limit}
}

// next returns the next line without its "\n", which the last line may lack. The line is valid until the next call.
// For a line above the limit, next skips the line and returns tooLong and no bytes. At the end of the stream the error
// is io.EOF. After any other read error, the incomplete last line is not returned.
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
