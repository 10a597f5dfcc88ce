package replica

import (
	"fmt"
	"math"
	"testing"

	"heavy-read-api/internal/cache/protocol"
)

// If the sequence number or the log is at the limit of versions, close to it or beyond it, one write begins a new history,
// and the next writes continue that.
func TestVersionsStartAgainAtTheirLimit(t *testing.T) {
	k := protocol.NewKeys(protocol.DefaultNamespace)
	const limit = 9_000_000_000_000_000
	sequence := func(v uint64) []any { return []any{"SET", k.Seq, v} }
	entry := func(id uint64, packed string) []any { return []any{"XADD", k.Log, fmt.Sprint(id, "-0"), "e", packed} }
	const ours = "write id" + "previous" + "\x01\x00\x01a"
	for name, commands := range map[string][][]any{
		"sequence at the last version":        {sequence(limit - 1)},
		"sequence 15 before the limit":        {sequence(limit - 15)},
		"sequence at the limit":               {sequence(limit)},
		"log at the last version":             {entry(limit-1, "x")},
		"log beyond the limit":                {entry(limit+1, "x")},
		"log at the last id":                  {entry(math.MaxUint64, "x")},
		"both at the last version":            {sequence(limit - 1), entry(limit-1, ours)},
		"both one commit before":              {sequence(limit - 2), entry(limit-2, ours)},
		"both beyond the limit":               {sequence(limit + 5), entry(limit+5, ours)},
		"sequence beyond, invalid log entry":  {sequence(math.MaxUint64), entry(7, "x")},
		"sequence before, log at the last id": {sequence(limit - 1), entry(math.MaxUint64, ours)},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, addr string) {
				p, r, c := newPublisher(t, addr), startReplica(t, addr), client(t, addr)
				ready(t, r)
				first := write(t, p, set("a", "old"))[0].Token
				reached(t, r, first)
				for _, command := range commands {
					if err := c.Do(t.Context(), command...).Err(); err != nil {
						t.Fatal(err)
					}
				}
				begun := write(t, p, set("b", "x"), set("c", "x"), set("d", "x"))[2].Token
				if begun.Epoch == first.Epoch || begun.Version > limit/2 {
					t.Fatalf("the first write has the token %v, want a low version of a new history", begun)
				}
				reached(t, r, begun)
				snapshots := gathered(t, r, "cache_snapshots_total")
				for i := range 20 {
					token := write(t, p, set("a", fmt.Sprint(i)))[0].Token
					if want := (protocol.Token{Epoch: begun.Epoch, Version: begun.Version + uint64(i) + 1}); token != want {
						t.Fatalf("write %d has the token %v, want %v", i, token, want)
					}
					reached(t, r, token)
				}
				holds(t, r, "a", "19")
				holds(t, r, "d", "x")
				if n := gathered(t, r, "cache_snapshots_total"); n != snapshots {
					t.Errorf("the following writes caused %v snapshots", n-snapshots)
				}
			})
		})
	}
}
