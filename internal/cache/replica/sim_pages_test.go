package replica

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
)

// simPager is a client that reads the posts page by page, also from one replica after the other, and then becomes the
// follower of the feed.
type simPager struct {
	values map[string]string
	after  string
	since  *protocol.Position // nil before the first page
}

// pagesFollowed is the number of followers that have begun with pages, in all schedules.
var pagesFollowed atomic.Int64

// readPage lets the client read its next page. A request that would have to wait fails, as with 503.
func (s *sim) readPage() {
	p := s.applier.public.Load()
	if !p.whole || p.begun != s.applier.public.begun.Load() {
		return
	}
	c := &s.pager
	if c.since == nil {
		*c = simPager{values: map[string]string{}}
	} else if c.since.Epoch == p.watermark.Epoch && !p.watermark.Reached(c.since.Newest().Token()) {
		return
	}
	r := &Replica{store: s.applier.store.Store, public: s.applier.public, feed: s.applier.feed, keyLists: s.keyLists}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	since := c.since
	if s.broken == "feed pages unchecked" {
		since = nil
	}
	page, err := r.List(ctx, c.after, 1+s.rng.IntN(4), math.MaxInt64, since)
	if errors.Is(err, feed.ErrGone) {
		c.since, c.after = nil, ""
	}
	if err != nil {
		s.log("page after %q: %v", c.after, err)
		return
	}
	if c.since != nil {
		page.Since.Head = c.since.Head
	}
	if s.broken == "feed pages without ahead" {
		page.Since.Ahead = protocol.Head{}
	}
	if page.Since.WriteID == 0 && page.Since.Version > 0 { // junk in the log: see startFollower
		c.since, c.after = nil, ""
		return
	}
	s.log("page after %q: %d posts up to %q, since %v", c.after, len(page.Values), page.Last, page.Since)
	c.after, c.since = page.Last, &page.Since
	for _, value := range page.Values {
		c.values[value[:1]] = value
	}
	if page.End {
		s.followPages(page.Since)
	}
}

// followPages makes the client the follower. It follows from the position in its last page.
func (s *sim) followPages(since protocol.Position) {
	f := &s.follower
	if f.Follower != nil {
		f.Close()
	}
	f.values, f.version, f.epoch = s.pager.values, since.Version, since.Epoch
	f.Follower = s.applier.feed.Follow(since)
	s.pager = simPager{}
	pagesFollowed.Add(1)
}
