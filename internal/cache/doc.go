// Package cache is a replicated cache: a publisher writes values to Redis, and every replica keeps the
// whole data set, or as much of it as its memory limit allows, in the memory of its process.
//
// Redis Pub/Sub is the fast path and a log in Redis is the repair path. A write is one atomic script that
// takes the next version, stores the value, appends to the log and publishes. A replica applies messages
// that continue its watermark. After anything else - a gap, a reconnect, a miss - it catches up by log
// steps: a log step is a read-only script that returns, from one instant, the log after the watermark, the
// current values of its keys and of the keys that readers miss, and the head. When the log does not
// continue the watermark, the replica takes a snapshot by SCAN while it follows the log.
//
// This folder has no code of its own. None of its packages interprets values:
//
//	protocol   the wire format: heads, frames, keys, log steps, the Lua scripts
//	publisher  the write side
//	store      the memory of a replica; does not import Redis
//	keyset     a large set of keys in order; imports neither Redis nor the store
//	snapfile   the file from which a replica starts; imports neither Redis nor the store
//	replica    the read side, which keeps a store equal to Redis
//	clock      an estimate of Redis's clock
//	census     Redis's counts of keys, and settings that lose values
//
// docs/protocol.md describes the protocol.
package cache
