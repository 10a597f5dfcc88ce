package reader

import (
	"testing"

	"heavy-read-api/internal/cache/replica"
)

func TestGCPercent(t *testing.T) {
	const mb = 1 << 20
	loading := func(bytes, entries, total int64) replica.Status {
		return replica.Status{Held: bytes, Entries: entries, MaxBytes: 512 * mb, Snapshot: &replica.SnapshotProgress{Total: total}}
	}
	for _, c := range []struct {
		name   string
		live   int64
		status replica.Status
		want   int
	}{
		{"empty", mb, replica.Status{}, 100},
		{"few posts", 5 * mb, replica.Status{Held: mb, Entries: 4000}, 100},
		{"many posts", 100 * mb, replica.Status{Held: 100 * mb, Entries: 300_000}, 10},
		{"more posts", 1400 * mb, replica.Status{Held: 1400 * mb, Entries: 4_000_000}, minGCPercent},
		{"start of the first snapshot", mb, loading(0, 0, 1_000_000), 100},
		{"first posts of a snapshot, before any collection", 0, loading(mb, 2500, 1_000_000), 4950},
		{"a quarter of the first snapshot", 100 * mb, loading(100*mb, 250_000, 1_000_000), 150},
		{"end of the first snapshot", 396 * mb, loading(400*mb, 1_000_000, 1_000_000), 2},
		{"snapshot of more posts than fit", 256 * mb, loading(256*mb, 500_000, 2_000_000), 50},
		{"later snapshot", 400 * mb, replica.Status{Ready: true, Held: 400 * mb, Entries: 1_000_000, MaxBytes: 512 * mb, Snapshot: &replica.SnapshotProgress{Total: 2_000_000}}, 2},
	} {
		if got := gcPercent(c.live, expected(c.status)); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
