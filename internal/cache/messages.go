package cache

import (
	"context"
	"time"
)

// hear applies the messages of the channel that continue the watermark, and catches up for the
// rest.
func (a *applier) hear(ctx context.Context, messages []string) {
	batch := newBatch(len(messages))
	var published []time.Time
	commits := 0
	flush := func(to Head) {
		a.store.apply(to.Epoch, batch.changes)
		a.watermark = to
		a.holds(to.token())
		a.publish(Head{}, nil)
		now := a.clock.now(a.now())
		for _, t := range published {
			// The writer's estimate of Redis's clock and this one are each off by a part of a round trip.
			a.metrics.propagation.Observe(max(0, now.Sub(t)).Seconds())
		}
		a.metrics.messages.WithLabelValues("applied").Add(float64(commits))
		batch.reset()
		published, commits = published[:0], 0
	}

	at := a.watermark
	confirmed := false // a step, run after these messages arrived, has shown that Redis is in the history of at
	for _, message := range messages {
		if err := a.heard.decode(message); err != nil {
			// If it was one of ours that was damaged, the next message shows the gap.
			a.metrics.messages.WithLabelValues("invalid").Inc()
			a.invalidMessages.Log(a.log.Warn, a.now(), "ignored a message that the write script did not publish", "err", err)
			continue
		}
		c := &a.heard
		if confirmed && c.head.Epoch != at.Epoch {
			a.ignore(c.head.Epoch)
		}
		verdict := a.weigh(c, at)
		if c.head.Epoch == at.Epoch {
			a.received = max(a.received, c.head.Version)
		}
		switch verdict {
		case "applied":
			for i := range c.records {
				r := &c.records[i]
				batch.add(change{key: r.key, value: r.value, version: c.version(i), present: r.op == Set})
				published = append(published, r.published)
			}
			at = c.head
			commits++
		case "gap":
			a.metrics.messages.WithLabelValues(verdict).Inc()
			if !a.synced {
				break // a step brings it
			}
			if len(published) > 0 {
				flush(at)
			}
			a.doubt(ctx, verdict)
			at, confirmed = a.watermark, a.synced
			if confirmed && c.head.Epoch != at.Epoch {
				a.ignore(c.head.Epoch)
			}
		default:
			a.metrics.messages.WithLabelValues(verdict).Inc()
		}
	}
	if len(published) > 0 {
		flush(at)
	}
	clear(a.heard.records) // or it would keep the last message alive
}

// weigh says what is to be done with a commit that was heard when everything up to at is known.
func (a *applier) weigh(c *commit, at Head) (verdict string) {
	_, ignored := a.ignored[c.head.Epoch]
	switch {
	case c.head.Epoch == at.Epoch && c.head.Version == at.Version && c.head.WriteID != at.WriteID,
		c.head.Epoch == at.Epoch && c.head.Version <= a.received:
		return "gap" // the channel is in order, so versions come again only after a rollback
	case c.head.Epoch != at.Epoch && ignored, c.head.Epoch == at.Epoch && c.head.Version <= at.Version:
		return "old"
	case a.synced && c.head.Epoch == at.Epoch && c.version(0) == at.Version+1 && c.previous == at.WriteID:
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
