package replica

import (
	"fmt"
	"time"

	"heavy-read-api/internal/redisnode"
)

// Bounds of the reads that Replica.Direct sends to one Redis node.
const (
	directReads = 8                      // at a time
	directWait  = 100 * time.Millisecond // longest wait of a read for its turn
)

// DirectConfig returns c for the connections that Replica.Direct reads with: their pool bounds how many
// reads run at a time and how long the others wait for a connection.
func DirectConfig(c redisnode.Config) redisnode.Config {
	c.PoolSize, c.PoolTimeout = directReads, directWait
	return c
}

// poolConns is the number of pooled connections that a replica holds at the same time: one for the
// log, one for the SCAN of a snapshot, and those that read its pages.
const poolConns = 1 + 1 + reads

// checkPool reports a pool that is too small for a replica: every snapshot would fail, waiting for a
// connection while it holds the others.
func checkPool(f *redisnode.Finder) error {
	if size := f.PoolSize(); size < poolConns {
		return fmt.Errorf("a pool of %d Redis connections: a replica needs %d, set PoolSize", size, poolConns)
	}
	return nil
}
