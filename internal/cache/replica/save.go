package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
	"heavy-read-api/internal/cache/store"
)

const (
	// firstSave is the time from the start of a replica to its first save, and from a save that was not possible to the
	// next.
	firstSave = 15 * time.Second
	// saveRate bounds the disk bandwidth of a save in the background, in bytes per second. The last one, by Save, has
	// no bound.
	saveRate = 64 << 20
	// saveTimeout bounds a save in the background. With saveRate it allows for 38 GB.
	saveTimeout = 10 * time.Minute
	// freeReserve is the free space that a save leaves on the disk, in bytes.
	freeReserve = 64 << 20
)

// Reasons for which a save does not take place. No data are lost: the old file stays.
var (
	errNotLoaded    = errors.New("the replica does not hold a state of Redis at the moment")
	errInterrupted  = errors.New("a snapshot or another history began during the save")
	errUnchanged    = errors.New("the file is up to date")
	errNoSpace      = errors.New("the disk is too full")
	errIndexChanged = errors.New("the index was replaced during the save")
	errDamaged      = errors.New("an entry in memory is damaged")
)

// buckets is the part of a store that a save reads while the applier changes it. See store.Store.
type buckets interface {
	Buckets() (count int, index uint64)
	Visit(n int, visit func(key []byte, e store.Entry) bool) (whole bool)
}

// saveStart is the state of the applier at the start of a save.
type saveStart struct {
	head       protocol.Head
	generation uint64 // number of snapshots that have begun
	current    time.Time
	note       string
}

// beginSave returns the state at the start of a save. Every write up to its head is in the store then.
func (a *applier) beginSave() (s saveStart, err error) {
	if !a.loaded || a.store.InSnapshot() || a.restoring || a.watermark.Epoch == 0 {
		return s, errNotLoaded
	}
	s = saveStart{head: a.watermark, generation: a.generation, current: a.public.Load().contact}
	if s.current.IsZero() {
		return s, errNotLoaded // a Redis replica that has been stale since the start
	}
	if a.vanish != nil {
		s.note = a.vanish.note()
	}
	return s, nil
}

// endSave returns the newest head that the store may have held until now, and whether it has held the whole data set
// since the start of the save.
func (a *applier) endSave(s saveStart) (ahead protocol.Head, complete bool, err error) {
	if a.generation != s.generation || a.store.InSnapshot() || a.watermark.Epoch != s.head.Epoch {
		return ahead, false, errInterrupted
	}
	if ahead = a.watermark; a.ahead.Version > ahead.Version {
		ahead = a.ahead
	}
	return ahead, a.store.Complete(), nil
}

// saver writes the store to the snapshot file while the applier changes it: it notes the watermark, reads bucket after
// bucket, and notes the newest head that an entry may have. docs/protocol.md says why that suffices.
type saver struct {
	file    *file
	store   buckets
	size    func() int64 // estimate of the size of the file, in bytes
	maxSize int64        // limit of the size of the file, in bytes
	turns   *turns
	log     *slog.Logger
	metrics *metrics

	turn   chan struct{} // has a token while no save runs
	hurry  chan struct{} // closed by the first Save: then saveRate does not apply
	hasten atomic.Bool   // hurry is closed
	saves  atomic.Uint64 // number of files that were written
}

func newSaver(f *file, st buckets, t *turns, log *slog.Logger, m *metrics, maxSize int64, size func() int64) *saver {
	s := &saver{file: f, store: st, turns: t, log: log, metrics: m,
		size: size, maxSize: maxSize + maxSize/4, turn: make(chan struct{}, 1), hurry: make(chan struct{})}
	s.turn <- struct{}{}
	return s
}

// run saves now and then until ctx is done. The pauses vary, so that replicas that were started together take turns.
func (s *saver) run(ctx context.Context) {
	pause := min(firstSave, s.file.Interval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(pause) * (0.75 + rand.Float64()/2))):
		}
		pause = s.file.Interval
		bounded, cancel := context.WithTimeout(ctx, saveTimeout)
		if err := s.save(bounded, s.file.Interval/2); errors.Is(err, errNotLoaded) || errors.Is(err, errInterrupted) {
			pause = min(firstSave, s.file.Interval)
		}
		cancel()
	}
}

// last saves without a bound of the bandwidth, unless the file is up to date. If a save is running, last waits for it
// instead.
func (s *saver) last(ctx context.Context) error {
	before := s.saves.Load()
	if s.hasten.CompareAndSwap(false, true) {
		close(s.hurry)
	}
	select {
	case <-s.turn:
		s.turn <- struct{}{}
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.saves.Load() > before {
		return nil
	}
	return s.save(ctx, 0)
}

// save writes the file, unless it is younger than fresh, and counts and logs the result.
func (s *saver) save(ctx context.Context, fresh time.Duration) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	began := time.Now()
	header, summary, err := s.replace(ctx, fresh)
	switch {
	case err == nil:
		s.saves.Add(1)
		s.file.note(header, &summary)
		s.metrics.saves[saveDone].Inc()
		s.log.Info("saved the snapshot file", "entries", summary.Entries, "bytes", summary.Size, "version", header.Start.Version,
			"holds_all", summary.Complete, "took", time.Since(began).Round(time.Millisecond))
	case errors.Is(err, errUnchanged), errors.Is(err, errNotLoaded), errors.Is(err, errInterrupted), errors.Is(err, snapfile.ErrLocked), errors.Is(err, context.Canceled):
		s.metrics.saves[saveSkipped].Inc()
		s.log.Debug("the snapshot file was not saved", "reason", err)
	default:
		s.metrics.saves[saveFailed].Inc()
		s.log.Warn("cannot save the snapshot file; a restart uses the last one, or loads from Redis", "file", s.file.path, "err", err)
	}
	return err
}

// replace writes a new file in place of the old one.
func (s *saver) replace(ctx context.Context, fresh time.Duration) (*snapfile.Header, snapfile.Summary, error) {
	var none snapfile.Summary
	release, err := snapfile.Lock(s.file.path)
	if err != nil {
		return nil, none, err
	}
	defer release()
	start, err := s.begin(ctx)
	if err != nil {
		return nil, none, err
	}
	header := snapfile.Header{Identity: s.file.identity, Note: start.note, Start: snapfile.Head(start.head), Current: start.current}
	if s.upToDate(&header, fresh) {
		return nil, none, errUnchanged
	}
	free, err := snapfile.Free(s.file.Folder)
	if err != nil {
		return nil, none, err
	}
	if need := s.size() + freeReserve; free < need {
		return nil, none, fmt.Errorf("%w: it has %d free bytes, and the save needs %d", errNoSpace, free, need)
	}
	const tries = 3
	for try := 1; ; try++ {
		summary, err := s.write(ctx, start, header, min(s.maxSize, free-freeReserve))
		if !errors.Is(err, errIndexChanged) || try == tries {
			return &header, summary, err
		}
	}
}

// begin asks the applier for the start of a save.
func (s *saver) begin(ctx context.Context) (start saveStart, err error) {
	if callErr := s.turns.call(ctx, func(a *applier) { start, err = a.beginSave() }); callErr != nil {
		return start, callErr
	}
	return start, err
}

// upToDate reports whether the file on disk need not be replaced: it has the same head and is not old, it was saved by
// another replica a moment ago, or its data are newer.
func (s *saver) upToDate(h *snapfile.Header, fresh time.Duration) bool {
	r, err := snapfile.Open(s.file.path)
	if err != nil {
		return false
	}
	defer r.Close()
	now := time.Now()
	age := now.Sub(r.Header.Current)
	if s.file.check(&r.Header, now) != nil || age < 0 { // negative after the clock was set back
		return false
	}
	sameEpoch := r.Header.Start.Epoch == h.Start.Epoch
	unchanged := r.Header.Start == h.Start && r.Summary.Complete && age < s.file.MaxAge/2
	newer := r.Header.Current.After(h.Current) && (!sameEpoch || r.Header.Start.Version > h.Start.Version)
	if unchanged || newer || sameEpoch && age < fresh {
		s.file.note(&r.Header, &r.Summary)
		return true
	}
	return false
}

// write writes a file of at most limit bytes.
func (s *saver) write(ctx context.Context, start saveStart, header snapfile.Header, limit int64) (none snapfile.Summary, err error) {
	w, err := snapfile.Create(s.file.path, header, limit)
	if err != nil {
		return none, err
	}
	defer w.Abort()
	if err := s.walk(ctx, w, start.head.Epoch); err != nil {
		return none, err
	}
	var ahead protocol.Head
	var complete bool
	if callErr := s.turns.call(ctx, func(a *applier) { ahead, complete, err = a.endSave(start) }); callErr != nil {
		return none, callErr
	}
	if err != nil {
		return none, err
	}
	return w.Commit(snapfile.Head(ahead), complete)
}

// walk adds every entry to the file.
func (s *saver) walk(ctx context.Context, w *snapfile.Writer, epoch uint64) error {
	began, size := time.Now(), w.Size()
	_, first := s.store.Buckets()
	for n := 0; ; n++ {
		count, index := s.store.Buckets()
		switch {
		case index != first:
			return errIndexChanged
		case n >= count:
			return nil
		}
		var err error
		whole := s.store.Visit(n, func(key []byte, e store.Entry) bool {
			if e.Epoch != epoch {
				err = errInterrupted
			} else {
				err = w.Add(key, e.Value, e.Version)
			}
			return err == nil
		})
		if err == nil && !whole {
			err = errDamaged // a file that lacks an entry would answer 404 for it
		}
		if err != nil {
			return err
		}
		if w.Size() != size { // a block has been written
			size = w.Size()
			if err := s.pace(ctx, began, size); err != nil {
				return err
			}
		}
	}
}

// pace waits until a save that has written size bytes since began is not faster than saveRate.
func (s *saver) pace(ctx context.Context, began time.Time, size int64) error {
	wait := time.Duration(float64(size)/saveRate*float64(time.Second)) - time.Since(began)
	if wait <= 0 || s.hasten.Load() {
		return ctx.Err()
	}
	select {
	case <-time.After(wait):
	case <-s.hurry:
	case <-ctx.Done():
	}
	return ctx.Err()
}
