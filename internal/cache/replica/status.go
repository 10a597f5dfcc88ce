package replica

import (
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// Status is the state of a replica.
type Status struct {
	Ready       bool          // the first snapshot is complete and the subscription was confirmed, or the file is served; stays true
	Synced      bool          // every write in Redis was applied as of the last probe
	Complete    bool          // the whole data set is in memory
	Subscribed  bool          // the subscription is confirmed
	Degraded    bool          // ready, but not known to be up to date
	Problem     string        // reason for which the replica may not be up to date, or ""
	NoHistory   bool          // Redis has values, but sequence, epoch or log were deleted: not synced until the next write
	Applied     protocol.Head // every write up to here is applied
	Newest      protocol.Head // newest head that Redis has returned
	LagVersions uint64
	Lag         time.Duration     // time since the replica was last known to have every write; 0 while it is synced
	Snapshot    *SnapshotProgress // the running snapshot, or nil
	Entries     int64
	Bytes       int64 // upper bound of the memory that the entries take, including the index and dead space
	Held        int64 // estimate of the heap that the entries take now, in bytes
	MaxBytes    int64
	SubProblem  string        // reason for which the subscription is not confirmed, if known
	File        *FileStatus   // the snapshot file, or nil
	FromFile    bool          // the entries are from the file, and Redis has not confirmed them
	Digest      *Digest       // digest of the data set at Applied; nil while memory does not hold exactly that state
	SnapshotAt  time.Time     // end of the last snapshot; zero before the first one
	SnapshotIn  time.Duration // time that it took
	Hazards     []string      // how Redis may lose values without a write, or has just lost some
}

// Status returns the state of the replica. It does not block.
func (r *Replica) Status() Status {
	p := r.public.Load()
	s := Status{
		Ready:       r.public.ready.Load(),
		Complete:    r.store.Complete(),
		Subscribed:  r.sub.live.Load() != 0,
		Applied:     p.watermark,
		Newest:      p.newest,
		LagVersions: p.lag(),
		Snapshot:    p.snapshot,
		NoHistory:   p.noHistory,
		FromFile:    p.fromFile,
		Digest:      p.digest,
		SnapshotAt:  p.snapshotAt,
		SnapshotIn:  p.snapshotIn,
		Problem:     p.problem,
		Hazards:     *r.public.hazards.Load(),
		Entries:     r.store.Entries(),
		Bytes:       r.store.Cost(),
		Held:        r.store.HeapEstimate(),
		MaxBytes:    r.store.MaxSize(),
	}
	if r.file != nil {
		s.File = r.file.status.Load()
	}
	if !s.Subscribed {
		s.SubProblem, _ = r.sub.err.Load().(string)
	}
	age := time.Since(p.contact)
	if p.contact.IsZero() {
		age = 0 // Redis has not been reached yet
	}
	// A probe takes stepTimeout at most; when none has succeeded for longer, the state is unknown.
	s.Synced = p.synced && age < r.cfg.Probe+stepTimeout
	if !s.Synced {
		s.Lag = age
	}
	s.Degraded = s.Ready && (!s.Synced || !s.Subscribed)
	return s
}
