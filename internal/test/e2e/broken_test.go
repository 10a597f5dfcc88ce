package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
)

// These tests verify that the load and the checks of all other tests detect readers that break a promise.

// rewrite is a view that changes the answers for brokenKey, which is never deleted.
type rewrite struct {
	view
	change func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup)
}

const brokenKey = "key1"

func (v *rewrite) Get(key []byte) (store.Entry, store.Lookup) {
	e, found := v.view.Get(key)
	if string(key) != brokenKey {
		return e, found
	}
	return v.change(e, found)
}

func (v *rewrite) Fetch(ctx context.Context, key string, min replica.Min) (store.Entry, bool, error) {
	e, present, err := v.view.Fetch(ctx, key, min)
	if string(key) != brokenKey || err != nil {
		return e, present, err
	}
	found := store.Absent
	if present {
		found = store.Hit
	}
	e, found = v.change(e, found)
	return e, found == store.Hit, nil
}

func TestBrokenReadersAreFoundOut(t *testing.T) {
	t.Parallel()
	for _, broken := range []struct {
		name    string
		promise string // promise that the checker must report, possibly among others
		change  func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup)
	}{
		{"returns the previous version at times", "P2", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			var before, last store.Entry
			reads := 0
			return func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				if e.Version > last.Version {
					before, last = last, e
				}
				if reads++; reads%50 == 0 && before.Version > 0 {
					return before, store.Hit
				}
				return e, found
			}
		}},
		{"misses every update after the first", "P2", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			var first store.Entry
			return func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				if first.Version == 0 {
					first = e
				}
				return first, found
			}
		}},
		{"misses the last update", "P1", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			var before, last store.Entry
			return func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				if e.Version > last.Version {
					before, last = last, e
				}
				if before.Version == 0 {
					return e, found
				}
				return before, found
			}
		}},
		{"returns a false absence at times", "P2", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			reads := 0
			return func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				if reads++; reads%50 == 0 {
					return store.Entry{}, store.Absent
				}
				return e, found
			}
		}},
		{"always returns a false absence", "P6", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			return func(store.Entry, store.Lookup) (store.Entry, store.Lookup) { return store.Entry{}, store.Absent }
		}},
		{"returns corrupt bytes at times", "values", func() func(store.Entry, store.Lookup) (store.Entry, store.Lookup) {
			reads := 0
			return func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				if reads++; reads%50 == 0 {
					e.Value = strings.Replace(e.Value, "#", "$", 1)
				}
				return e, found
			}
		}},
	} {
		t.Run(broken.name, func(t *testing.T) {
			w := newWorld(t, setup{replicas: 1})
			w.mustWrite(w.set(brokenKey, 0))
			w.settled()
			change := broken.change()
			var mu sync.Mutex // guards the state of change
			w.readers[0].view = &rewrite{w.readers[0].replica, func(e store.Entry, found store.Lookup) (store.Entry, store.Lookup) {
				mu.Lock()
				defer mu.Unlock()
				return change(e, found)
			}}
			stop := w.run(load{keys: 10})
			w.flow(800)
			stop()
			w.settled()
			w.wantViolation(broken.promise)
		})
	}
}

// wantViolation fails the test unless the check reports a violation of promise, and only for brokenKey.
func (w *world) wantViolation(promise string) {
	w.t.Helper()
	var promises []string
	for _, v := range w.history.Check(w.final()) {
		if v.Key != brokenKey {
			w.t.Errorf("violation for a key that was not changed: %v", v)
		}
		if !slices.Contains(promises, v.Promise) {
			promises = append(promises, v.Promise)
		}
	}
	w.t.Logf("violated promises: %v", promises)
	if !slices.Contains(promises, promise) {
		w.t.Errorf("violated promises: %v, want %s among them", promises, promise)
	}
}

// A write that is acknowledged and was never done.
func TestLostWriteIsFoundOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: 1})
	token := w.mustWrite(w.set(brokenKey, 0))[0].Token
	w.keys.Store(brokenKey, true)
	w.history.Write(brokenKey, w.value(brokenKey, 0)).Ack(token.Epoch, token.Version+1)
	w.settled()
	w.wantViolation("P3")
}
