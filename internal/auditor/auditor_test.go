package auditor

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
)

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want string // "" for a valid configuration
	}{
		{map[string]string{"AUDIT_READERS": "reader:80,reader-direct:80"}, ""},
		{map[string]string{"AUDIT_READERS_FILE": "list"}, ""},
		{nil, "no readers to compare: set AUDIT_READERS or AUDIT_READERS_FILE"},
		{map[string]string{"AUDIT_READERS": "reader"}, "AUDIT_READERS=reader: write host:port, such as reader:80"},
		{map[string]string{"AUDIT_READERS": "reader:80", "AUDIT_SCAN_RATE": "-1"}, "AUDIT_SCAN_RATE=-1: use at least 1"},
		{map[string]string{"AUDIT_READERS": "reader:80", "AUDIT_MAX_SIZE": "1000"}, "AUDIT_MAX_SIZE: cache size of 1000 bytes: use at least 65536"},
	} {
		c, err := ParseConfig(nil, func(name string) string { return tt.env[name] })
		if tt.want == "" && (err != nil || !c.Local.Checksums || c.Local.MaxSize != defaultMemory || c.Every != time.Second || c.ScanRate != defaultScanRate) {
			t.Errorf("%v: %+v, %v", tt.env, c, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v: error %v, want %q", tt.env, err, tt.want)
		}
	}
}

// The list of readers is that of the configuration and that of the file, which may change or vanish at any time.
func TestAddresses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "readers")
	a := &auditor{cfg: Config{Readers: []string{"127.0.0.1:1", "nowhere.invalid:2"}, ReadersFile: file}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, tt := range []struct {
		content string
		want    []string
	}{
		{"", []string{"127.0.0.1:1", "nowhere.invalid:2"}},
		{"127.0.0.1:3\n127.0.0.1:1\nnot an address\n", []string{"127.0.0.1:1", "127.0.0.1:3", "nowhere.invalid:2"}},
	} {
		if tt.content != "" {
			if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.addresses(t.Context()); !slices.Equal(got, tt.want) {
			t.Errorf("with the file %q: %v, want %v", tt.content, got, tt.want)
		}
	}
}

func TestSummary(t *testing.T) {
	digest := func(version, value uint64) []replica.Digest {
		return []replica.Digest{{Head: protocol.Head{Epoch: 1, Version: version, WriteID: version}, Value: value}}
	}
	for _, tt := range []struct {
		name      string
		readers   []reader
		agreed    time.Time
		fits      *bool
		identical string
		want      string
	}{
		{"no reader", nil, time.Time{}, nil, "unknown", "the readers cannot be compared now; Redis has not been compared yet"},
		{"identical", []reader{{name: "a", digests: digest(1234567, 1)}, {name: "b", digests: digest(1234567, 1)}}, time.Now().Add(-40 * time.Second), new(true), "true",
			"2 readers identical at version 1,234,567; Redis agreed 40s ago"},
		{"others are left out", []reader{{name: "a", digests: digest(7, 1)}, {name: "b", digests: digest(7, 1)}, {name: "c", digests: digest(5, 2)}, {name: "d"}, {name: "e", err: io.EOF}}, time.Time{}, nil, "true",
			"2 readers identical at version 7; c at another version; d not comparable; e unreachable; Redis has not been compared yet"},
		{"different", []reader{{name: "a", digests: digest(7, 1)}, {name: "b", digests: digest(7, 2)}}, time.Time{}, nil, "false",
			"DIFFERENT POSTS at the same version: a and b; Redis has not been compared yet"},
	} {
		var v verdict
		var copies []audit.Copy
		for _, r := range tt.readers {
			copies = append(copies, audit.Copy{Name: r.name, Digests: r.digests})
		}
		result := audit.Compare(copies)
		v.set(tt.readers, &result, &result, &auditor{agreedAt: tt.agreed, fits: tt.fits})
		got := v.get()
		identical := "unknown"
		if got.Identical != nil {
			identical = map[bool]string{true: "true", false: "false"}[*got.Identical]
		}
		if got.Summary != tt.want || identical != tt.identical || (got.Status == "degraded") != (tt.identical == "false") {
			t.Errorf("%s: %q, identical %s, status %s; want %q, %s", tt.name, got.Summary, identical, got.Status, tt.want, tt.identical)
		}
	}
}
