// Package events records what happens to a stack - a reader is killed, Redis is back, readers are added - with its
// outcome: how long it took, and how many reads failed meanwhile.
package events

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Kinds of events.
const (
	Killed      = "killed"       // a process died
	Frozen      = "frozen"       // a process got a SIGSTOP
	Cut         = "cut"          // the link between a reader and Redis was cut
	NotReady    = "not ready"    // a process does not answer, or reports that it is not ready
	Degraded    = "degraded"     // a process is ready, with a problem
	Failover    = "failover"     // another Redis server is the primary
	Scaled      = "scaled"       // readers were added or removed
	Left        = "left"         // a reader is not listed any more
	Joined      = "joined"       // a reader that had left is listed again
	Snapshot    = "snapshot"     // readers loaded all posts
	CatchUp     = "catch-up"     // readers read the log
	LoadStarted = "load started" // by a button or make load
	LoadStopped = "load stopped"
)

// Verdicts of an event that is over.
const (
	Good     = "good"
	Bad      = "bad"
	Unproven = "unproven" // all is well again, but no reads were sent that could have failed, or digests were not compared
)

// Event is something that happened. An event without an outcome, such as a snapshot, ends as it begins.
type Event struct {
	ID      int64  `json:"id"`
	Time    int64  `json:"time"`          // Unix milliseconds
	End     int64  `json:"end,omitempty"` // Unix milliseconds; 0 while it goes on
	Kind    string `json:"kind"`
	Process string `json:"process,omitempty"`
	Text    string `json:"text"`
	Outcome string `json:"outcome,omitempty"` // "" while it goes on, and for an event without one
	Verdict string `json:"verdict,omitempty"` // Good, Bad or Unproven; "" while it goes on, and for an event without an outcome
	Reads   int64  `json:"reads,omitempty"`   // reads that ended meanwhile
	Failed  int64  `json:"failed,omitempty"`  // reads that failed meanwhile
	Count   int    `json:"count,omitempty"`   // how often it happened, if that is more than once
}

// String returns the line of an event in a list.
func (e Event) String() string {
	line := time.UnixMilli(e.Time).Format(time.TimeOnly) + " " + e.Text
	if e.Outcome != "" {
		line += "; " + e.Outcome
	}
	return line
}

// Totals are the reads since some time in the past.
type Totals struct {
	Reads  int64 `json:"reads"`
	Failed int64 `json:"failed"` // answered with 5xx by the gateway, or not answered as the load generator expects
}

// readsText describes the reads between two totals.
func readsText(reads, failed int64) string {
	if reads == 0 && failed == 0 {
		return "no reads were sent meanwhile"
	}
	return fmt.Sprintf("%s of %s reads failed", humanize.Comma(failed), humanize.Comma(reads))
}

// Digest is the digest of what a reader holds at a version of the data set.
type Digest struct {
	Value   string `json:"value"` // 16 hex digits
	Version uint64 `json:"version"`
	Epoch   string `json:"epoch"`
	WriteID string `json:"write_id"` // differs between two writes with the same version, before and after a rollback
}

// Agreement is the result of a comparison of digests.
type Agreement string

// Results of a comparison.
const (
	NotKnown  Agreement = ""          // no two digests belong to the same version
	Identical Agreement = "identical" // all that belong to the same version are equal
	Differ    Agreement = "differ"
)

// Compare compares the digests of readers, by name. Digests of different versions say nothing about each other. compared
// are the readers whose digest has another one at its version.
func Compare(digests map[string]Digest) (result Agreement, compared []string) {
	type head struct {
		epoch   string
		version uint64
		writeID string
	}
	readers := make(map[head][]string)
	for name, d := range digests {
		at := head{d.Epoch, d.Version, d.WriteID}
		readers[at] = append(readers[at], name)
	}
	for _, names := range readers {
		if len(names) < 2 {
			continue
		}
		compared = append(compared, names...)
		if slices.ContainsFunc(names, func(name string) bool { return digests[name].Value != digests[names[0]].Value }) {
			result = Differ
		} else if result == NotKnown {
			result = Identical
		}
	}
	return result, compared
}

// list joins names with commas and "and".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
