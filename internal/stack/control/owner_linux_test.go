package control

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// A request of this user passes, and one for another user's stack does not, whichever kind of socket it comes from.
func TestOtherUsersAreRefused(t *testing.T) {
	passes := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, tt := range map[string]struct {
		handler http.Handler
		want    int
	}{
		"own":     {ownerOnly(passes), http.StatusOK},
		"another": {usersOnly(passes, os.Getuid()+1), http.StatusForbidden},
	} {
		srv := httptest.NewServer(tt.handler)
		defer srv.Close()
		res, err := http.Post(srv.URL, "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != tt.want {
			t.Errorf("%s stack: status %d, want %d", name, res.StatusCode, tt.want)
		}
	}
}

func TestOwnerInTable(t *testing.T) {
	client, server := netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:3000")
	v4 := "0100007F"
	mapped := "0000000000000000FFFF00000100007F"
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		v4, mapped = "7F000001", "00000000000000000000FFFF7F000001"
	}
	for name, tt := range map[string]struct {
		line string
		user int
		ok   bool
	}{
		"the client":           {"1: " + v4 + ":9C40 " + v4 + ":0BB8 01 0:0 0:0 0 1000 0 77 1", 1000, true},
		"an IPv6 socket":       {"1: " + mapped + ":9C40 " + mapped + ":0BB8 01 0:0 0:0 0 1000 0 77 1", 1000, true},
		"the server's end":     {"1: " + v4 + ":0BB8 " + v4 + ":9C40 01 0:0 0:0 0 1000 0 77 1", 0, false},
		"another port":         {"1: " + v4 + ":9C41 " + v4 + ":0BB8 01 0:0 0:0 0 1000 0 77 1", 0, false},
		"another address":      {"1: " + strings.Replace(v4, "01", "02", 1) + ":9C40 " + v4 + ":0BB8 01 0:0 0:0 0 1000 0 77 1", 0, false},
		"closed, so of root":   {"1: " + v4 + ":9C40 " + v4 + ":0BB8 05 0:0 0:0 0 0 0 0 1", 0, false},
		"waits, so of root":    {"1: " + v4 + ":9C40 " + v4 + ":0BB8 06 0:0 0:0 0 0 0 0 3", 0, false},
		"the title":            {"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", 0, false},
		"nothing":              {"", 0, false},
		"an incomplete number": {"1: 0100:9C40 " + v4 + ":0BB8 01 0:0 0:0 0 1000 0 77 1", 0, false},
	} {
		if user, ok := ownerIn(tt.line, client, server); user != tt.user || ok != tt.ok {
			t.Errorf("%s: user %d, %v", name, user, ok)
		}
	}
}
