package replica

import (
	"sync"

	"heavy-read-api/internal/cache/protocol"
)

// inbox holds the messages that the subscription could not apply at once until the applier takes them. It never blocks
// the subscription: when it is full it drops all messages, and the applier catches up. These methods are for the
// subscription; the applier uses an inboxOwner.
type inbox struct {
	wake chan struct{} // has a token while there is something to take; never closed

	mu       sync.Mutex // guards all fields below
	messages []string
	bytes    int
	reason   catchUpReason   // reason for which messages may be missing, or noCatchUp
	epoch    uint64          // epoch of the watermark; messages of other epochs do not prove that the subscription works
	newest   uint64          // newest version of epoch in a message
	scratch  protocol.Commit // scratch space of push
}

// Bounds of the inbox. Catch-up costs less than a longer queue.
const (
	inboxMessages = 64 << 10
	inboxBytes    = 16 << 20
)

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// push adds a message. When the inbox is full, push drops all messages, this one included, and returns their number.
func (b *inbox) push(message string) (dropped int) {
	b.mu.Lock()
	if head := protocol.MessageHead(message); head.Epoch == b.epoch && head.Version > b.newest && b.scratch.Decode(message) == nil {
		b.newest = head.Version
	}
	clear(b.scratch.Records) // otherwise they keep the message alive
	if len(b.messages) == inboxMessages || b.bytes+len(message) > inboxBytes {
		dropped = len(b.messages) + 1
		b.messages, b.bytes, b.reason = nil, 0, catchUpOverflow
	} else {
		b.messages = append(b.messages, message)
		b.bytes += len(message)
	}
	b.mu.Unlock()
	b.signal()
	return dropped
}

// requestCatchUp makes the applier catch up.
func (b *inbox) requestCatchUp(reason catchUpReason) {
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

// inboxOwner is the applier's side of an inbox.
type inboxOwner struct{ *inbox }

// pass records the head of a message that is applied without waiting in the inbox. It returns false, and records nothing,
// if something waits there: the message would overtake it.
func (o inboxOwner) pass(head protocol.Head) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.messages) > 0 || o.reason != noCatchUp {
		return false
	}
	if head.Epoch == o.epoch {
		o.newest = max(o.newest, head.Version)
	}
	return true
}

// drain empties the inbox. It does not block.
func (o inboxOwner) drain() (messages []string, reason catchUpReason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	messages, reason = o.messages, o.reason
	o.messages, o.bytes, o.reason = nil, 0, noCatchUp
	return messages, reason
}

// discard drops the messages. The caller reads the log next, which has all of them.
func (o inboxOwner) discard() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages, o.bytes = nil, 0
}

// track starts recording the newest version of epoch. It forgets those received so far, which may have been rolled
// back.
func (o inboxOwner) track(epoch uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch, o.newest = epoch, 0
}

// received returns the newest version of epoch in a message since track, or false when another epoch is tracked.
func (o inboxOwner) received(epoch uint64) (version uint64, tracked bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.newest, o.epoch == epoch
}
