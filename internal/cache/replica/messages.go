package replica

import (
	"context"
	"time"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// pendingCommits collects commits that continue the watermark until they are applied together.
type pendingCommits struct {
	batch     *store.Batch
	events    []feed.Event
	published []time.Time // times at which the writer framed the values
	commits   int
}

// maxScratch is the largest number of records for which the memory of a batch is kept.
const maxScratch = 1024

func (p *pendingCommits) add(c *protocol.Commit) {
	for i := range c.Records {
		r := &c.Records[i]
		p.batch.Add(store.Change{Key: r.Key, Value: r.Value, Version: c.Version(i), Present: r.Op == protocol.Set})
		p.published = append(p.published, r.Published)
	}
	p.events = feed.AppendCommit(p.events, c)
	p.commits++
}

// reset empties p and releases what it refers to.
func (p *pendingCommits) reset() {
	clear(p.batch.Changes)
	p.batch.Reset()
	clear(p.events)
	p.events, p.published, p.commits = p.events[:0], p.published[:0], 0
	if cap(p.published) > maxScratch {
		*p = newPendingCommits()
	}
}

func newPendingCommits() pendingCommits { return pendingCommits{batch: store.NewBatch(1)} }

// applyCommits applies the pending commits, which lead up to the head to.
func (a *applier) applyCommits(to protocol.Head) {
	p := &a.pending
	if p.commits == 0 {
		return
	}
	a.public.begun.Add(1)
	a.store.Apply(to.Epoch, p.batch.Changes)
	a.feed.Append(a.watermark, p.events, to)
	a.watermark = to
	a.noteNewest(to.Token())
	a.publish(protocol.Head{}, nil)
	now := a.clock.Now(a.now())
	for _, t := range p.published {
		// The writer's estimate of Redis's clock and this one are each off by a part of a round trip.
		a.metrics.propagation.Observe(max(0, now.Sub(t)).Seconds())
	}
	a.metrics.messages[messageApplied].Add(float64(p.commits))
	p.reset()
}

// applyMessages applies the messages that continue the watermark, and catches up at a gap.
func (a *applier) applyMessages(ctx context.Context, messages []string) {
	at := a.watermark  // head after the pending commits
	confirmed := false // a log step that ran after these messages arrived has confirmed at
	c := &a.decoded
	for _, message := range messages {
		if err := c.Decode(message); err != nil {
			// If this was a damaged message of a writer, the next one shows the gap.
			a.metrics.messages[messageInvalid].Inc()
			a.invalidMessages.Log(a.log.Warn, a.now(), "ignored a message that the write script did not publish; check which other program uses this channel", "err", err)
			continue
		}
		if confirmed && c.Head.Epoch != at.Epoch {
			a.ignore(c.Head.Epoch)
		}
		result := a.classify(c, at)
		if c.Head.Epoch == at.Epoch {
			a.received = max(a.received, c.Head.Version)
		}
		if result == messageApplied {
			a.pending.add(c)
			checkpoint := isCheckpoint(at, c.Head)
			at = c.Head
			if checkpoint {
				a.applyCommits(at)
			}
			continue
		}
		a.metrics.messages[result].Inc()
		if result != messageGap || !a.synced { // while not synced, a log step brings it
			continue
		}
		a.applyCommits(at)
		a.resync(ctx, catchUpGap)
		at, confirmed = a.watermark, a.synced
		if confirmed && c.Head.Epoch != at.Epoch {
			a.ignore(c.Head.Epoch)
		}
	}
	a.applyCommits(at)
	clear(c.Records) // otherwise they keep the last message alive
}

// applyNow applies a message that continues the watermark and overtakes no other, and reports whether it did. It makes no
// request to Redis. Every other message is for applyMessages.
func (a *applier) applyNow(message string) bool {
	c := &a.decoded
	defer func() { clear(c.Records) }() // otherwise they keep the message alive
	if !a.synced || c.Decode(message) != nil || a.classify(c, a.watermark) != messageApplied || !a.inbox.pass(c.Head) {
		return false
	}
	a.received = max(a.received, c.Head.Version)
	a.pending.add(c)
	a.applyCommits(c.Head)
	return true
}

// classify compares a commit with at, up to which every commit has been applied.
func (a *applier) classify(c *protocol.Commit, at protocol.Head) messageResult {
	same := c.Head.Epoch == at.Epoch
	_, ignored := a.ignored[c.Head.Epoch]
	switch {
	case same && c.Head.Version == at.Version && c.Head.WriteID != at.WriteID,
		same && c.Head.Version <= a.received:
		return messageGap // the channel preserves the order, so a version is repeated only after a rollback
	case !same && ignored, same && c.Head.Version <= at.Version:
		return messageOld
	case a.synced && same && c.Version(0) == at.Version+1 && c.Previous == at.WriteID:
		return messageApplied
	}
	return messageGap
}

// maxIgnored bounds the ignored epochs. A message of an epoch that was evicted costs one log step.
const maxIgnored = 1024

// ignore makes classify ignore the messages of epoch.
func (a *applier) ignore(epoch uint64) {
	if _, known := a.ignored[epoch]; !known && len(a.ignored) >= maxIgnored {
		for any := range a.ignored { // evict only one: messages of the others still cost nothing
			delete(a.ignored, any)
			break
		}
	}
	a.ignored[epoch] = struct{}{}
}
