package control

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The kernel's tables of TCP sockets. A client may use an IPv6 socket for an IPv4 address.
var tables = []string{"/proc/net/tcp", "/proc/net/tcp6"}

// userOf returns the user of the local process that has a connection from one address to another, as host:port. known is
// always true.
func userOf(from, to string) (user int, known bool, err error) {
	client, err1 := netip.ParseAddrPort(from)
	server, err2 := netip.ParseAddrPort(to)
	if err := errors.Join(err1, err2); err != nil {
		return 0, true, err
	}
	for _, table := range tables {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		} else if err != nil {
			return 0, true, err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if user, ok := ownerIn(lines.Text(), client, server); ok {
				return user, true, nil
			}
		}
		if err := lines.Err(); err != nil {
			return 0, true, fmt.Errorf("read %s: %w", table, err)
		}
	}
	return 0, true, fmt.Errorf("no process of this machine has the connection from %s", from)
}

// ownerIn returns the user in a line of a table if it is that of the client's socket. A socket that its process has
// closed shows root as its user; it has no inode.
func ownerIn(line string, client, server netip.AddrPort) (user int, ok bool) {
	f := strings.Fields(line) // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ...
	if len(f) < 10 || f[9] == "0" || !same(f[1], client) || !same(f[2], server) {
		return 0, false
	}
	user, err := strconv.Atoi(f[7])
	return user, err == nil
}

// same reports whether text is an address as the tables have it: words of 32 bits in hex, each a number in the byte order
// of this machine, and the port.
func same(text string, want netip.AddrPort) bool {
	ip, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	raw, hexErr := hex.DecodeString(ip)
	if err != nil || hexErr != nil || uint16(number) != want.Port() || len(raw)%4 != 0 {
		return false
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return ok && addr.Unmap() == want.Addr().Unmap()
}
