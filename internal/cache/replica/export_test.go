package replica

import (
	"context"
	"errors"
	"time"
	"unsafe"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// Faults of a running replica, for the tests of what compares replicas. They are not part of any program.

// FlipByte changes a byte of the value of key in memory.
func (r *Replica) FlipByte(key string) error {
	e, found := r.Get([]byte(key))
	if found != store.Hit || e.Value == "" {
		return errors.New("not in memory: " + key)
	}
	*unsafe.StringData(e.Value) ^= 0x10
	return nil
}

// FlipLength changes the length of the value of key in memory, which is before the length of the key and the key, so that the
// entry cannot be read.
func (r *Replica) FlipLength(key string) error {
	e, found := r.Get([]byte(key))
	if found != store.Hit || e.Value == "" {
		return errors.New("not in memory: " + key)
	}
	*(*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(e.Value)), -len(key)-6)) ^= 0x10
	return nil
}

// SwapValues gives two keys the value of the other one.
func (r *Replica) SwapValues(ctx context.Context, x, y string) error {
	a, foundA := r.Get([]byte(x))
	b, foundB := r.Get([]byte(y))
	if foundA != store.Hit || foundB != store.Hit {
		return errors.New("not in memory")
	}
	return r.turns.call(ctx, func(ap *applier) {
		ap.store.Apply(a.Epoch, []store.Change{
			{Key: x, Value: b.Value, Version: a.Version, Present: true},
			{Key: y, Value: a.Value, Version: b.Version, Present: true},
		})
		ap.publish(protocol.Head{}, nil)
	})
}

// SkipMessage runs write while the replica applies nothing, then drops the message of the write of key as if it had been
// applied: the watermark moves and memory does not.
func (r *Replica) SkipMessage(ctx context.Context, key string, write func()) (err error) {
	asked := r.turns.call(ctx, func(a *applier) {
		write()
		for until := time.Now().Add(5 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
			messages, reason := a.inbox.drain()
			if reason != noCatchUp {
				a.inbox.requestCatchUp(reason)
			}
			for i, m := range messages {
				var c protocol.Commit
				if c.Decode(m) != nil || c.Records[0].Key != key || c.Previous != a.watermark.WriteID {
					a.applyMessages(ctx, messages[i:i+1])
					continue
				}
				a.watermark, a.received = c.Head, c.Head.Version
				a.applyMessages(ctx, messages[i+1:])
				a.publish(protocol.Head{}, nil)
				return
			}
		}
		err = errors.New("no message of the write has arrived")
	})
	return errors.Join(asked, err)
}
