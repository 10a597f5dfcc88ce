package httpkit

import "bytes"

// VersionCookie is the name of the cookie with the version of its client's last write. The writer sets it, and readers answer
// no older than that write.
const VersionCookie = "posts_version"

// CookieValue returns the value of the first cookie with a name in a Cookie header, or nil if there is none. Several lines
// of the header are joined by semicolons. The result is a part of header.
func CookieValue(header []byte, name string) []byte {
	for len(header) > 0 {
		var pair []byte
		pair, header, _ = bytes.Cut(header, []byte(";"))
		pair = bytes.TrimLeft(pair, " \t")
		if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
			return bytes.TrimRight(pair[len(name)+1:], " \t")
		}
	}
	return nil
}
