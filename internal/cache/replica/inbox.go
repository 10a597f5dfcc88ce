package replica

import (
	"heavy-read-api/internal/cache/protocol"
	"sync"
)

// inbox holds what the subscription has heard until the applier takes it. It never blocks the
// subscription: what does not fit is forgotten, and the applier is told that something is missing.
type inbox struct {
	wake chan struct{} // has a token while there is something to take; never closed

	mu       sync.Mutex
	messages []string
	bytes    int
	reason   string          // why the messages may have a gap; "" when they have none
	epoch    uint64          // epoch of the watermark; messages of other epochs do not prove that the subscription works
	newest   uint64          // newest version of epoch that was received
	scratch  protocol.Commit // scratch space of push
}

// Bounds of the inbox. Catch-up costs less than a longer queue.
const (
	inboxMessages = 64 << 10
	inboxBytes    = 16 << 20
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// push adds a message. When the inbox is full it drops all it had, and the message; it returns how
// many that were.
func (b *inbox) push(message string) (dropped int) {
	b.mu.Lock()
	if head := protocol.MessageHead(message); head.Epoch == b.epoch && head.Version > b.newest && b.scratch.Decode(message) == nil {
		b.newest = head.Version
	}
	clear(b.scratch.Records) // or it would keep the message alive
	if len(b.messages) == inboxMessages || b.bytes+len(message) > inboxBytes {
		dropped = len(b.messages) + 1
		b.messages, b.bytes, b.reason = nil, 0, "overflow"
	} else {
		b.messages = append(b.messages, message)
		b.bytes += len(message)
	}
	b.mu.Unlock()
	b.signal()
	return dropped
}

// resync tells the applier that messages may be missing.
func (b *inbox) resync(reason string) {
	b.mu.Lock()
	b.reason = reason
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// drain empties the inbox. It does not block.
func (b *inbox) drain() (messages []string, doubt string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages, doubt = b.messages, b.reason
	b.messages, b.bytes, b.reason = nil, 0, ""
	return messages, doubt
}

// discard forgets the messages; the caller reads the log next, which has them all.
func (b *inbox) discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages, b.bytes = nil, 0
}

// track starts recording the newest version of epoch, and forgets those received so far: they may have
// been rolled back.
func (b *inbox) track(epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.epoch, b.newest = epoch, 0
}

// received returns the newest version of epoch that was received since track, or false when another
// epoch is tracked.
func (b *inbox) received(epoch uint64) (version uint64, tracked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest, b.epoch == epoch
}
