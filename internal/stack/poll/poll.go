// Package poll waits for conditions that send no notification.
package poll

import (
	"context"
	"time"
)

// Until calls done every 50 ms until it returns true; then it returns true. It returns false once ctx is done.
func Until(ctx context.Context, done func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
