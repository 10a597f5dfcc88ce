package httpkit

import "errors"

// errETagList continues a sentence that begins with the name of the header.
var errETagList = errors.New(`is not a list of entity tags: send tags in double quotes, separated by commas, or only *`)

// NextETag splits the first entity tag off a list, as in If-Match and If-None-Match (RFC 9110, section
// 8.8.3). tag includes its quotes and is empty at the end of the list. weak reports whether the tag has the
// prefix W/. NextETag allocates nothing. It rejects "*"; see AnyETag.
func NextETag(list []byte) (tag []byte, weak bool, rest []byte, err error) {
	// A list may contain empty elements (section 5.6.1.2).
	for len(list) > 0 && (list[0] == ',' || isSpace(list[0])) {
		list = list[1:]
	}
	if len(list) == 0 {
		return nil, false, nil, nil
	}
	if len(list) > 2 && list[0] == 'W' && list[1] == '/' {
		weak, list = true, list[2:]
	}
	if list[0] != '"' {
		return nil, false, nil, errETagList
	}
	end := 1
	for end < len(list) && (list[end] == '!' || list[end] >= '#' && list[end] != 0x7f) {
		end++
	}
	if end == len(list) || list[end] != '"' {
		return nil, false, nil, errETagList
	}
	tag, rest = list[:end+1], list[end+1:]
	for len(rest) > 0 && isSpace(rest[0]) {
		rest = rest[1:]
	}
	if len(rest) > 0 && rest[0] != ',' {
		return nil, false, nil, errETagList
	}
	return tag, weak, rest, nil
}

// AnyETag reports whether a header is "*", which matches every existing representation.
func AnyETag(header []byte) bool {
	for len(header) > 0 && isSpace(header[0]) {
		header = header[1:]
	}
	for len(header) > 0 && isSpace(header[len(header)-1]) {
		header = header[:len(header)-1]
	}
	return len(header) == 1 && header[0] == '*'
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
