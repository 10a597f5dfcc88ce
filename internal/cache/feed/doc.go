// Package feed keeps the newest changes of a replica in memory and wakes the clients that follow them.
//
// The contract of every follower: events come in the order of their versions, each at most once. An event is exactly
// the write that has its version. A set may be left out only if the key has been written again since, and that later
// write follows. So a follower that has received everything up to a head holds, for every key, the state at that head or
// a newer one, and once it has caught up, exactly the state of Redis.
//
// The window has every write that the channel delivered. A log step has all deletes, and those sets whose values are
// still current. Both keep the contract, so a follower may change between them at any event.
//
// What a log step leaves out has been replaced by writes up to the head of that step. Redis may be rolled back to a point
// between the two; then the later write never follows, and what was left out is current again. So a position has that
// head too, until the follower has passed it, and a follower continues only in a history that has both.
package feed
