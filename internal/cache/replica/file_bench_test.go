package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
	"heavy-read-api/internal/cache/store"
)

// benchPosts is the number of posts in the benchmarks of the snapshot file; key and value have 317 bytes together.
const benchPosts = 1_000_000

// benchApplier returns an applier with a file in folder and without Redis.
func benchApplier(b *testing.B, folder string) *applier {
	b.Helper()
	cfg, err := store.Config{MaxSize: 1 << 30}.WithDefaults()
	if err != nil {
		b.Fatal(err)
	}
	owner, err := store.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	a := newApplier(nil, owner, newInbox(), newMissQueue(), quiet(), newMetrics())
	a.file = newFile(FileConfig{Folder: folder, MaxAge: time.Hour}, "bench")
	return a
}

func benchEntry(i int) (key, value string) {
	key = fmt.Sprintf("post-%09d", i)
	return key, key + strings.Repeat("x", 317-2*len(key))
}

// Loading a file, from the page cache.
func BenchmarkLoadFile(b *testing.B) {
	folder := b.TempDir()
	a := benchApplier(b, folder)
	w, err := snapfile.Create(a.file.path, snapfile.Header{Identity: a.file.identity, Start: snapfile.Head{Epoch: 1, Version: 1}, Current: time.Now()}, 1<<40)
	if err != nil {
		b.Fatal(err)
	}
	for i := range benchPosts {
		key, value := benchEntry(i)
		if err := w.Add([]byte(key), value, 1); err != nil {
			b.Fatal(err)
		}
	}
	s, err := w.Commit(snapfile.Head{Epoch: 1, Version: 1}, true)
	if err != nil {
		b.Fatal(err)
	}
	a.close()
	b.SetBytes(s.Size)
	for b.Loop() {
		a := benchApplier(b, folder)
		a.restore(context.Background())
		if n := a.store.Entries(); n != benchPosts {
			b.Fatal(n)
		}
		a.close()
	}
}

// Saving a file, without a bound of the bandwidth.
func BenchmarkSaveFile(b *testing.B) {
	folder := b.TempDir()
	a := benchApplier(b, folder)
	defer a.close()
	var changes []store.Change
	for i := range benchPosts {
		key, value := benchEntry(i)
		changes = append(changes, store.Change{Key: key, Value: value, Version: 1, Present: true})
	}
	a.store.Apply(1, changes)
	changes = nil
	a.watermark, a.loaded = protocol.Head{Epoch: 1, Version: 1}, true
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	turns := newTurns(a)
	go func() {
		for {
			select {
			case f := <-turns.calls:
				turns.take(f)
			case <-ctx.Done():
				return
			}
		}
	}()
	s := newSaver(a.file, a.store.Store, turns, quiet(), a.metrics, 1<<30, a.store.HeapEstimate)
	for b.Loop() {
		a.watermark.Version++
		if err := s.last(ctx); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(a.file.status.Load().Bytes)
	}
	left, err := filepath.Glob(filepath.Join(folder, "*.snapshot"))
	if err != nil || len(left) != 1 {
		b.Fatal(left, err)
	}
}
