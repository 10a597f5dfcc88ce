package httpkit

// FieldIs reports whether name equals lower, ignoring the case of name. lower is in lower case. It allocates nothing.
func FieldIs(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(lower) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// ParseLength parses the value of a Content-Length: one to 18 digits, so that it fits into an int64 (RFC 9110, section
// 8.6).
func ParseLength(digits []byte) (n int64, ok bool) {
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, len(digits) >= 1 && len(digits) <= 18
}
