// Package cache is a replicated cache: a Publisher writes values to Redis, and every Replica keeps
// the whole data set, or as much of it as its memory limit allows, in the memory of its process.
//
// Redis Pub/Sub is the fast path and a log in Redis is the repair path. A write is one atomic
// script that takes the next version, stores the value, appends to the log and publishes. A
// replica applies messages that continue its watermark; whatever else it meets - a gap, a
// reconnect, a doubt, a miss - it settles with one mechanism, the step: a read-only script that
// returns, at one instant, what the log has after the watermark, the current values of those keys
// and of the keys that readers miss, and the head. Where the log cannot tell any more, the replica
// reloads everything by SCAN while it follows the log.
//
// The package knows keys and bytes; it does not look into values.
package cache
