package replica

import (
	"context"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"time"
)

// applyMessages applies the messages of the channel that continue the watermark, and catches up for the
// rest.
func (a *applier) applyMessages(ctx context.Context, messages []string) {
	batch := store.NewBatch(len(messages))
	var published []time.Time
	commits := 0
	flush := func(to protocol.Head) {
		a.store.Apply(to.Epoch, batch.Changes)
		a.watermark = to
		a.noteNewest(to.Token())
		a.publish(protocol.Head{}, nil)
		now := a.clock.Now(a.now())
		for _, t := range published {
			// The writer's estimate of Redis's clock and this one are each off by a part of a round trip.
			a.metrics.propagation.Observe(max(0, now.Sub(t)).Seconds())
		}
		a.metrics.messages.WithLabelValues("applied").Add(float64(commits))
		batch.Reset()
		published, commits = published[:0], 0
	}

	at := a.watermark
	confirmed := false // a step, run after these messages arrived, has shown that Redis is in the history of at
	for _, message := range messages {
		if err := a.decoded.Decode(message); err != nil {
			// If it was one of ours that was damaged, the next message shows the gap.
			a.metrics.messages.WithLabelValues("invalid").Inc()
			a.invalidMessages.Log(a.log.Warn, a.now(), "ignored a message that the write script did not publish", "err", err)
			continue
		}
		c := &a.decoded
		if confirmed && c.Head.Epoch != at.Epoch {
			a.ignore(c.Head.Epoch)
		}
		verdict := a.classify(c, at)
		if c.Head.Epoch == at.Epoch {
			a.received = max(a.received, c.Head.Version)
		}
		switch verdict {
		case "applied":
			for i := range c.Records {
				r := &c.Records[i]
				batch.Add(store.Change{Key: r.Key, Value: r.Value, Version: c.Version(i), Present: r.Op == protocol.Set})
				published = append(published, r.Published)
			}
			at = c.Head
			commits++
		case "gap":
			a.metrics.messages.WithLabelValues(verdict).Inc()
			if !a.synced {
				break // a step brings it
			}
			if len(published) > 0 {
				flush(at)
			}
			a.resync(ctx, verdict)
			at, confirmed = a.watermark, a.synced
			if confirmed && c.Head.Epoch != at.Epoch {
				a.ignore(c.Head.Epoch)
			}
		default:
			a.metrics.messages.WithLabelValues(verdict).Inc()
		}
	}
	if len(published) > 0 {
		flush(at)
	}
	clear(a.decoded.Records) // or it would keep the last message alive
}

// classify says what is to be done with a commit that was heard when everything up to at is known.
func (a *applier) classify(c *protocol.Commit, at protocol.Head) (verdict string) {
	_, ignored := a.ignored[c.Head.Epoch]
	switch {
	case c.Head.Epoch == at.Epoch && c.Head.Version == at.Version && c.Head.WriteID != at.WriteID,
		c.Head.Epoch == at.Epoch && c.Head.Version <= a.received:
		return "gap" // the channel is in order, so versions come again only after a rollback
	case c.Head.Epoch != at.Epoch && ignored, c.Head.Epoch == at.Epoch && c.Head.Version <= at.Version:
		return "old"
	case a.synced && c.Head.Epoch == at.Epoch && c.Version(0) == at.Version+1 && c.Previous == at.WriteID:
		return "applied"
	}
	return "gap"
}

// maxIgnored bounds the ignored epochs. A message of an epoch that was forgotten costs one step.
const maxIgnored = 1024

func (a *applier) ignore(epoch uint64) {
	if _, known := a.ignored[epoch]; !known && len(a.ignored) >= maxIgnored {
		for any := range a.ignored { // one, so that the others go on costing nothing
			delete(a.ignored, any)
			break
		}
	}
	a.ignored[epoch] = struct{}{}
}
