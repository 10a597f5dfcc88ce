// Package redisnode discovers the Redis server that a process must use, through DNS, Sentinel or Redis
// Cluster, and follows it when it moves. See docs/high-availability.md.
//
// A Finder returns a Node, a client of a single server. The subscription, the log steps and the snapshots
// of a replica all use the same Node. When that server is demoted or replaced, the Finder closes the Node
// with all its connections, subscriptions included, and the next call of Finder.Node discovers the new one.
package redisnode
