// Package protocol is the wire format of the cache: messages, stored values, log entries, and the Lua scripts that write
// and read them atomically. docs/protocol.md gives the reasons.
package protocol
