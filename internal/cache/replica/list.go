package replica

import (
	"context"
	"errors"
	"fmt"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// Errors of List. The first one lasts until the replica gets more memory, the others pass.
var (
	ErrPartial = errors.New("the posts do not fit into memory")
	ErrLoading = errors.New("the whole data set is not in memory yet")
	ErrSorting = errors.New("the keys are still being sorted")
)

// Page is a part of the data set, in the order of the keys.
type Page struct {
	Values []string // values of the keys in the page
	Last   string   // key after which the next page begins
	End    bool     // there is no next page

	// Version is a version that the page includes: it holds the state of each of its keys at that version or a newer one,
	// deleted keys included.
	Version protocol.Token
	// Since is the position from which the feed brings everything that this page, and those before it, may lack.
	Since protocol.Position
}

// List returns the values of up to limit keys after a key, in order, and about most bytes of them at most. since is the
// position in the page before, nil for the first page. The caller has reached it.
//
// A client that has read all pages, and then follows the feed from the position in the last one, holds the state of Redis
// once it has caught up: the position begins at the first page, and ends at the newest write that a page may have.
// Should Redis be rolled back to a point between the two, List or the feed fails with feed.ErrGone.
//
// List blocks at most until ctx is done.
func (r *Replica) List(ctx context.Context, after string, limit int, most int64, since *protocol.Position) (Page, error) {
	for ctx.Err() == nil {
		if err := r.listable(); err != nil {
			return Page{}, err
		}
		keys, err := r.keyLists.current(ctx)
		if errors.Is(err, errDamaged) {
			r.replaceDamage(ctx)
			return Page{}, ErrLoading
		}
		if err != nil {
			return Page{}, err
		}
		if keys.at.Behind() { // a catch-up runs: the list lacks keys whose events were left out for later ones
			if _, err := r.applied(ctx); err != nil {
				return Page{}, err
			}
			continue
		}
		// After the list, whose snapshot is compared below: a snapshot may bring another history at any time.
		if since != nil {
			if keys.at.Epoch != since.Epoch {
				return Page{}, fmt.Errorf("%w: another history has begun", feed.ErrGone)
			}
			if err := r.feed.Check(ctx, since.Newest()); err != nil {
				return Page{}, err
			}
		}
		page, missed := r.page(&keys, after, limit, most)
		newest, err := r.applied(ctx)
		if err != nil {
			return Page{}, err
		}
		if r.store.Snapshot() != keys.snapshot || newest.Epoch != keys.at.Epoch {
			continue // entries may have vanished, or be of another history
		}
		if missed != "" { // its entry is damaged: the answer of Redis replaces it
			if _, _, err := r.Fetch(ctx, missed, Min{}); err != nil {
				return Page{}, ErrLoading
			}
			continue
		}
		page.Version, page.Since = keys.at.Token(), keys.at
		if since != nil {
			page.Since.Head = since.Head
		}
		if page.Since.Ahead = newest; !page.Since.Behind() {
			page.Since.Ahead = protocol.Head{}
		}
		return page, nil
	}
	return Page{}, ErrLoading
}

// listable returns why the replica cannot list its keys.
func (r *Replica) listable() error {
	switch p := r.public.Load(); {
	case r.store.Complete() && !r.public.withheld.Load():
		return nil
	case p.synced && p.whole:
		return ErrPartial
	}
	return ErrLoading
}

// replaceDamage requests a snapshot, which replaces an entry that cannot be read. It blocks until the running turn has ended,
// unless ctx is done before.
func (r *Replica) replaceDamage(ctx context.Context) {
	_ = r.turns.call(ctx, func(a *applier) {
		if a.requested != noSnapshot || !r.mayReload(a) {
			return
		}
		a.log.Error("MEMORY IS DAMAGED: the ids cannot be listed, because a post, or its place in the index, is not what was stored. A snapshot replaces all posts; until then this reader answers pages with 503. If this happens again, check the memory of this machine")
		a.metrics.damaged.Inc()
		a.requestSnapshot(snapshotDamaged)
	})
}

// page reads a page. It returns the first key that memory should have and does not, if there is one.
func (r *Replica) page(keys *keyList, after string, limit int, most int64) (p Page, missed string) {
	p.Last = after
	for key := range keys.from(after) {
		if key == after {
			continue
		}
		e, found := r.Get([]byte(key))
		switch {
		case found == store.Absent: // deleted
			continue
		case found == store.Miss:
			return p, key
		case len(p.Values) == limit, len(p.Values) > 0 && int64(len(e.Value)) > most:
			return p, ""
		}
		p.Values, p.Last = append(p.Values, e.Value), key
		most -= int64(len(e.Value))
	}
	p.End = true
	return p, ""
}

// applied returns a head that includes every write that reads have seen so far. It blocks while a catch-up runs, until
// ctx is done at most.
func (r *Replica) applied(ctx context.Context) (protocol.Head, error) {
	begun := r.public.begun.Load()
	for {
		moved := r.public.gate.wait()
		if p := r.public.Load(); p.whole && p.begun >= begun {
			return p.watermark, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return protocol.Head{}, ErrLoading
		}
	}
}
