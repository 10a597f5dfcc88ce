package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
	"heavy-read-api/internal/cache/store"
)

// filePatience is the time for which a replica that has loaded its file tries to reach Redis before it serves the file.
const filePatience = time.Second

// saved is a snapshot file that has been opened.
type saved struct {
	header  snapfile.Header
	summary snapfile.Summary
	read    func(ctx context.Context, use func([]snapfile.Entry) error) error
}

// restore loads the snapshot file, if there is one, before the first request to Redis. A file that cannot be used is
// logged and ignored. It blocks until the file is loaded or ctx is done.
func (a *applier) restore(ctx context.Context) {
	if a.file == nil {
		return
	}
	began := a.now()
	r, err := snapfile.Open(a.file.path)
	if errors.Is(err, fs.ErrNotExist) {
		a.log.Info("there is no snapshot file yet; loading from Redis", "file", a.file.path)
		return
	}
	if err == nil {
		defer r.Close()
		if err = a.file.check(&r.Header, began); err == nil {
			err = a.load(ctx, &saved{header: r.Header, summary: r.Summary, read: r.Read})
		}
	}
	if err != nil {
		a.log.Warn("ignored the snapshot file; loading from Redis", "file", a.file.path, "err", err)
		return
	}
	a.file.note(&r.Header, &r.Summary)
	a.log.Info("loaded the snapshot file; catching up from the log", "entries", a.store.Entries(), "version", a.watermark.Version,
		"age", began.Sub(r.Header.Current).Round(time.Millisecond), "took", a.now().Sub(began).Round(time.Millisecond))
}

// load puts a file into the empty store. Afterwards the applier is in the state of an interrupted catch-up: at the head
// at which the save began, and with values up to the head at which it ended. The log brings every change after the
// first, as long as it has both heads; otherwise a snapshot replaces everything.
//
// No read sees the entries before the end of that catch-up, unless Redis is unreachable (serveFile). Absences are not
// answered from memory before: the file cannot show what was written since.
func (a *applier) load(ctx context.Context, f *saved) error {
	start := protocol.Head(f.header.Start)
	a.public.withheld.Store(true)
	if f.summary.Complete {
		a.store.BeginSnapshot(false) // finished by caughtUp, which makes the set complete
	}
	loading := SnapshotProgress{Reason: "file", Total: int64(f.summary.Entries), Began: a.now()}
	var changes []store.Change
	err := f.read(ctx, func(entries []snapfile.Entry) error {
		changes = changes[:0]
		for i := range entries {
			e := &entries[i]
			changes = append(changes, store.Change{Key: e.Key, Value: e.Value, Version: e.Version, Present: true})
		}
		a.store.Put(start.Epoch, changes)
		loading.Loaded += int64(len(entries))
		a.publish(protocol.Head{}, loading.copy())
		return nil
	})
	if err != nil {
		return fmt.Errorf("after %d entries: %w", loading.Loaded, err) // what was loaded stays withheld, and the first snapshot replaces it
	}
	a.store.Apply(start.Epoch, nil) // makes everything visible
	a.watermark, a.ahead, a.loaded, a.restoring = start, protocol.Head(f.summary.Ahead), true, true
	a.newest = a.ahead.Token()
	a.feed.Restart(start, a.ahead)
	a.inbox.track(start.Epoch)
	a.liveness.exemptUpTo(start, a.now())
	if a.vanish != nil {
		a.vanish.resume(f.header.Note)
	}
	a.public.Store(&progress{contact: f.header.Current})
	a.publish(protocol.Head{}, nil)
	return nil
}

// caughtUp makes the entries of the file visible to reads, and completes the set, once the store holds the state of
// Redis.
func (a *applier) caughtUp() {
	if a.restoring {
		a.restoring = false
		if a.store.InSnapshot() {
			a.store.FinishSnapshot()
		} else {
			a.partial = !a.store.Overflowed()
		}
		a.log.Info("caught up from the snapshot file", "entries", a.store.Entries(), "version", a.watermark.Version, "holds_all", a.store.Complete())
	}
	a.public.withheld.Store(false)
}

// serveFile makes the replica ready from its file when Redis has been unreachable for filePatience. The reads may be as
// stale as the file is old. It does nothing once Redis has shown that the file is of another history.
func (a *applier) serveFile() {
	if !a.restoring || a.public.ready.Load() || a.failingSince.IsZero() || a.now().Sub(a.failingSince) < filePatience {
		return
	}
	a.public.withheld.Store(false)
	a.public.ready.Store(true)
	a.log.Warn("ready from the snapshot file, because Redis is unreachable: reads may be stale, and ids that are not in the file get 503",
		"entries", a.store.Entries(), "age", a.now().Sub(a.public.Load().contact).Round(time.Second), "err", a.err)
}
