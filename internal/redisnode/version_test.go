package redisnode

import (
	"errors"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
)

// fakeServer starts a fake server and returns its address. commands maps each command to its reply; a reply
// that begins with a minus is sent as an error.
func fakeServer(t *testing.T, commands map[string]string) string {
	t.Helper()
	s, err := server.NewServer("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for name, answer := range commands {
		err := s.Register(name, func(c *server.Peer, _ string, _ []string) {
			if failure, ok := strings.CutPrefix(answer, "-"); ok {
				c.WriteError(failure)
				return
			}
			c.WriteBulk(answer)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.Addr().String()
}

// A server that is too old is refused with an error that says what to use. If the server refuses INFO, the
// missing EVALSHA_RO reveals that it is too old.
func TestOldServerIsRefused(t *testing.T) {
	const noPerm, noScript = "-NOPERM User writer has no permissions to run the '", "-NOSCRIPT No matching script."
	info := func(lines ...string) map[string]string {
		return map[string]string{"INFO": "# Server\r\n" + strings.Join(lines, "\r\n") + "\r\nrole:master\r\n"}
	}
	for _, tt := range []struct {
		name             string
		commands         map[string]string
		product, problem string
	}{
		{"oldest accepted", info("redis_version:7.0.0"), "Redis 7.0.0", ""},
		{"newer", info("redis_version:10.1.0"), "Redis 10.1.0", ""},
		{"development branch", info("redis_version:255.255.255"), "Redis 255.255.255", ""},
		{"Valkey", info("redis_version:7.2.4", "server_name:valkey", "valkey_version:9.1.2"), "Valkey 9.1.2", ""},
		{"old", info("redis_version:6.2.14"), "", "use Redis 7.0, Valkey 7.2 or a newer one: this is Redis 6.2.14"},
		{"no version", info("redis_mode:standalone"), "", "this one has no EVALSHA_RO"},
		{"hidden", map[string]string{"EVALSHA_RO": noScript}, "", ""},
		{"hidden and old", nil, "", "this one has no EVALSHA_RO"},
		{"not allowed", map[string]string{"INFO": noPerm + "info' command", "EVALSHA_RO": noPerm + "evalsha_ro' command"}, "", ""},
		{"not allowed and old", map[string]string{"INFO": noPerm + "info' command"}, "", "this one has no EVALSHA_RO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := finder(t, Config{Addrs: []string{fakeServer(t, tt.commands)}})
			_, err := f.Node(t.Context())
			if product := f.Server().Product; product != tt.product {
				t.Errorf("product %q, want %q", product, tt.product)
			}
			if tt.problem == "" && err != nil || tt.problem != "" && (!errors.Is(err, errTooOld) || !strings.HasSuffix(err.Error(), tt.problem)) {
				t.Errorf("error %v, want the suffix %q", err, tt.problem)
			}
		})
	}
}
