// Package replica is the read side of the cache: it keeps a store equal to Redis and answers reads from it.
//
// The applier owns the state (applier.go) and runs one loop (loop.go): it applies messages of the channel
// (messages.go), catches up from the log (catchup.go, judge.go), takes snapshots (snapshot.go, pages.go) and probes
// (liveness.go, vanish.go). It starts from a snapshot file (file.go, restore.go), which another goroutine saves
// (save.go). Other goroutines read what it publishes (progress.go). docs/protocol.md gives the reasons.
package replica
