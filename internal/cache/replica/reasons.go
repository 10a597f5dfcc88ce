package replica

// catchUpReason is the cause of a catch-up, a label of cache_catchups_total.
type catchUpReason uint8

// The reasons.
const (
	noCatchUp         catchUpReason = iota
	catchUpStart                    // the replica has started
	catchUpSubscribed               // the subscription was confirmed: earlier messages may be missing
	catchUpOverflow                 // the inbox dropped messages
	catchUpGap                      // a message does not continue the watermark
	catchUpRetry                    // messages arrived after a catch-up that failed
	catchUpProbe
	catchUpMiss
	catchUpRepair // an audit or the scrub has requested a snapshot
)

func (r catchUpReason) String() string {
	return [...]string{"", "start", "subscribed", "overflow", "gap", "retry", "probe", "miss", "repair"}[r]
}

// routine reports whether the catch-up takes place without a sign that writes are missing.
func (r catchUpReason) routine() bool { return r == catchUpProbe || r == catchUpMiss }

// snapshotReason is the cause of a snapshot, a label of cache_snapshots_total.
type snapshotReason uint8

// The reasons.
const (
	noSnapshot        snapshotReason = iota
	snapshotStart                    // the replica is empty
	snapshotResumed                  // the snapshot before failed
	snapshotNoHistory                // Redis has no epoch: the log does not show deletes
	snapshotVanished                 // Redis has lost values without a write
	snapshotEpoch                    // Redis is in another epoch
	snapshotHistory                  // the log has other writes than the replica has applied
	snapshotFormat                   // the log has an entry that this build cannot read
	snapshotTrimmed                  // the log begins after the watermark
	snapshotDamaged                  // the scrub, or a client that lists the posts, has found damaged memory
	snapshotAudit                    // an audit has requested it
)

func (r snapshotReason) String() string {
	return [...]string{"", "start", "broken off", "no history", "vanished", "epoch", "history", "format", "trimmed", "damaged", "audit"}[r]
}

// messageResult classifies a message of the channel; it is a label of cache_messages_total.
type messageResult uint8

// The results.
const (
	messageApplied messageResult = iota
	messageOld                   // applied before, or of an ignored epoch
	messageGap                   // does not continue the watermark
	messageInvalid               // not published by write.lua
	messageDropped               // did not fit into the inbox
	messageResults               // number of results
)

func (r messageResult) String() string {
	return [...]string{"applied", "old", "gap", "invalid", "dropped"}[r]
}

// saveResult is the result of a save of the snapshot file, a label of cache_file_saves_total.
type saveResult uint8

// The results.
const (
	saveDone    saveResult = iota
	saveSkipped            // the file is up to date, another process saves, or a snapshot is running
	saveFailed
	saveResults // number of results
)

func (r saveResult) String() string { return [...]string{"saved", "skipped", "failed"}[r] }

// fallbackResult is the result of a read from Redis, a label of cache_fallbacks_total.
type fallbackResult uint8

// The results.
const (
	fallbackFound fallbackResult = iota
	fallbackAbsent
	fallbackError
	fallbackResults // number of results
)

func (r fallbackResult) String() string { return [...]string{"found", "absent", "error"}[r] }
