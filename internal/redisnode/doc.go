// Package redisnode finds the one Redis server that a process talks to, and leaves it when it is no
// longer the right one: behind a name, by Sentinel, or in a Redis Cluster.
//
// A Finder hands out a Node, a client of a single address. Subscription, log steps and snapshots of a
// replica all use the same Node. When the Node turns out to be wrong - it was demoted, its name
// points elsewhere, Sentinels or the cluster name another server - the Finder closes it with all its
// connections, subscriptions included, and the next call finds the server that is right by then.
package redisnode
