package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// process is a replica that a test stops and starts again.
type process struct {
	*Replica
	log  *logtest.Buffer
	stop func() // may be called several times
}

// startWith starts a replica with a snapshot file in folder.
func startWith(t testing.TB, addr, folder string, options ...func(*Config)) *process {
	t.Helper()
	p := &process{log: new(logtest.Buffer)}
	cfg := Config{
		Redis: nodetest.New(t, addr), Probe: 50 * time.Millisecond, File: FileConfig{Folder: folder, Deployment: addr},
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(p.log, t.Output()), nil)),
	}
	for _, o := range options {
		o(&cfg)
	}
	var err error
	if p.Replica, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		p.Close()
	})
	t.Cleanup(p.stop)
	return p
}

// saveAndStop saves the file of a replica that has caught up, and stops it.
func (p *process) saveAndStop(t testing.TB) {
	t.Helper()
	if err := p.Save(t.Context()); err != nil && !errors.Is(err, errUnchanged) { // saved in the background a moment ago
		t.Fatal(err)
	}
	p.stop()
}

// logged waits for a text in the log.
func (p *process) logged(t testing.TB, text string) {
	t.Helper()
	eventually.Nil(t, func() error {
		if !strings.Contains(p.log.String(), text) {
			return fmt.Errorf("no %q in the log: %s", text, p.log.String())
		}
		return nil
	})
}

// A replica that starts from a file catches up with everything that was written, changed and deleted since, without a
// snapshot.
func TestStartFromAFile(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		folder, p := t.TempDir(), newPublisher(t, addr)
		write(t, p, set("kept", "1"), set("changed", "1"), set("deleted", "1"))
		first := startWith(t, addr, folder)
		ready(t, first.Replica)
		holds(t, first.Replica, "deleted", "1")
		first.saveAndStop(t)
		write(t, p, set("changed", "2"), set("new", "1"))
		write(t, p, protocol.Write{Op: protocol.Delete, Key: "deleted"})

		second := startWith(t, addr, folder)
		ready(t, second.Replica)
		for key, value := range map[string]string{"kept": "1", "changed": "2", "new": "1", "deleted": "", "unknown": ""} {
			holds(t, second.Replica, key, value)
		}
		second.logged(t, "caught up from the snapshot file")
		if strings.Contains(second.log.String(), "taking a snapshot") {
			t.Error("it took a snapshot")
		}
		if s := second.Status(); s.FromFile || s.File == nil || s.File.Entries != 3 || s.File.Bytes == 0 || s.Degraded {
			t.Errorf("%+v", s)
		}

		fromRedis := startWith(t, addr, "")
		ready(t, fromRedis.Replica)
		want := fromRedis.Status().Digest
		if got := second.Status().Digest; got == nil || want == nil || *got != *want {
			t.Errorf("digest %+v from the file, %+v from a snapshot", got, want)
		}
	})
}

// A file of a replica with too little memory does not have all values. A replica that starts from it and has room for them
// takes a snapshot, and its own file has them.
func TestStartFromAPartialFile(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	folder, p := t.TempDir(), newPublisher(t, server.Addr())
	const values = 40
	for i := range values {
		write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 10_000)))
	}
	small := startWith(t, server.Addr(), folder, func(c *Config) { c.Local.MaxSize = 128 << 10 })
	ready(t, small.Replica)
	if small.Status().Complete {
		t.Fatal("all values fit into the small replica")
	}
	small.saveAndStop(t)
	for _, name := range []string{"larger", "larger, with its own file"} {
		larger := startWith(t, server.Addr(), folder)
		ready(t, larger.Replica)
		eventually.Nil(t, func() error {
			if s := larger.Status(); !s.Complete || s.Entries != values || s.Degraded {
				return fmt.Errorf("%s: %+v", name, s)
			}
			return nil
		})
		larger.saveAndStop(t)
	}
}

// All replicas that are restarted while Redis is down serve the file, and say so. Ids that are not in it are no 404.
// When Redis is back, they catch up.
func TestStartWithoutRedis(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	folder, p := t.TempDir(), newPublisher(t, server.Addr())
	write(t, p, set("a", "1"), set("b", "1"))
	first := startWith(t, server.Addr(), folder)
	ready(t, first.Replica)
	holds(t, first.Replica, "b", "1")
	first.saveAndStop(t)
	server.Stop()

	var all []*process
	for range 3 {
		all = append(all, startWith(t, server.Addr(), folder))
	}
	for _, r := range all {
		ready(t, r.Replica)
		holds(t, r.Replica, "a", "1")
		if _, found := r.Get([]byte("unknown")); found != store.Miss {
			t.Errorf("an unknown id is %v", found)
		}
		if s := r.Status(); !s.Degraded || !s.FromFile || s.File == nil || s.Lag <= 0 || s.Problem == "" || s.Complete || s.Digest != nil {
			t.Errorf("%+v", s)
		}
		r.logged(t, "ready from the snapshot file")
		if err := r.Save(t.Context()); !errors.Is(err, errNotLoaded) {
			t.Errorf("a replica that has not caught up saves: %v", err)
		}
	}

	server.Restart()
	write(t, newPublisher(t, server.Addr()), set("b", "2"))
	for _, r := range all {
		for key, value := range map[string]string{"a": "1", "b": "2", "unknown": ""} {
			holds(t, r.Replica, key, value)
		}
		eventually.Nil(t, func() error {
			if s := r.Status(); s.FromFile || s.Degraded || !s.Complete {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if strings.Contains(r.log.String(), "taking a snapshot") {
			t.Error("it took a snapshot")
		}
	}
}

// A file that cannot be used is ignored and logged, and the replica loads from Redis. Without Redis it stays unready and
// serves no entry of the file.
func TestUnusableFile(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	addr := server.Addr()
	saved, p := t.TempDir(), newPublisher(t, addr)
	for i := range 50 {
		write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 20_000)))
	}
	first := startWith(t, addr, saved)
	ready(t, first.Replica)
	holds(t, first.Replica, "k49", strings.Repeat("x", 20_000))
	first.saveAndStop(t)
	content, err := os.ReadFile(first.file.path)
	if err != nil {
		t.Fatal(err)
	}
	old := func(cfg *Config) { cfg.File.MaxAge, cfg.File.Interval = time.Second, time.Second }
	for name, tt := range map[string]struct {
		content []byte
		options []func(*Config)
		reason  string
	}{
		"truncated":            {content[:len(content)/2], nil, "damaged"},
		"empty":                {nil, nil, "damaged"},
		"damaged in the end":   {damage(content, len(content)-300_000), nil, "damaged"},
		"damaged in the start": {damage(content, 100), nil, "damaged"},
		"old":                  {nil, []func(*Config){old}, "too old"},
		"foreign":              {nil, nil, "another data set"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, redis := range []string{addr, "127.0.0.1:1"} {
				options := append(slices.Clone(tt.options), func(cfg *Config) {
					cfg.File.Folder, cfg.File.Deployment = t.TempDir(), addr
					f := newFile(cfg.File, protocol.DefaultNamespace)
					h := snapfile.Header{Identity: f.identity, Start: snapfile.Head{Epoch: 1, Version: 1}, Current: time.Now()}
					switch name {
					case "old":
						h.Current = h.Current.Add(-time.Hour)
					case "foreign":
						h.Identity = "another"
					default:
						if err := os.WriteFile(f.path, tt.content, 0o600); err != nil {
							t.Fatal(err)
						}
						return
					}
					w, err := snapfile.Create(f.path, h, 1<<20)
					if err == nil {
						_, err = w.Commit(snapfile.Head{Epoch: 1, Version: 1}, true)
					}
					if err != nil {
						t.Fatal(err)
					}
				})
				r := startWith(t, redis, "", options...)
				r.logged(t, "ignored the snapshot file")
				r.logged(t, tt.reason)
				if redis == addr {
					ready(t, r.Replica)
					holds(t, r.Replica, "k49", strings.Repeat("x", 20_000))
					holds(t, r.Replica, "unknown", "")
					continue
				}
				eventually.True(t, "a failed request to Redis", func() bool { return r.Status().Problem != "" })
				if _, found := r.Get([]byte("k0")); found != store.Miss || r.Status().Ready || r.Status().FromFile {
					t.Errorf("k0 is %v, status %+v", found, r.Status())
				}
			}
		})
	}
}

// damage returns content with another byte at i.
func damage(content []byte, i int) []byte {
	c := slices.Clone(content)
	c[i] ^= 1
	return c
}

// A file of a history that Redis no longer has is replaced by a snapshot, and by the next save.
func TestFileOfAnotherHistory(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	folder, p := t.TempDir(), newPublisher(t, server.Addr())
	write(t, p, set("lost", "1"))
	first := startWith(t, server.Addr(), folder)
	ready(t, first.Replica)
	holds(t, first.Replica, "lost", "1")
	first.saveAndStop(t)
	if err := client(t, server.Addr()).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	write(t, p, set("new", "1"))

	second := startWith(t, server.Addr(), folder)
	ready(t, second.Replica)
	second.logged(t, "reason=epoch")
	holds(t, second.Replica, "new", "1")
	holds(t, second.Replica, "lost", "")
	second.saveAndStop(t)
	r, err := snapfile.Open(second.file.path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Summary.Entries != 1 || !r.Summary.Complete {
		t.Errorf("%+v", r.Summary)
	}
}

// A value that vanishes from Redis without a write while no replica runs is noticed after a start from the file.
func TestValueVanishesBeforeAStartFromAFile(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	folder, p, c := t.TempDir(), newPublisher(t, server.Addr()), client(t, server.Addr())
	write(t, p, set("a", "1"), set("b", "1"))
	if err := c.MSet(t.Context(), "other1", "", "other2", "").Err(); err != nil { // hides a missing key
		t.Fatal(err)
	}
	first := startWith(t, server.Addr(), folder)
	ready(t, first.Replica)
	holds(t, first.Replica, "b", "1")
	eventually.Nil(t, func() error { // the check of vanished values has counted the other keys
		if err := first.Save(t.Context()); err != nil && !errors.Is(err, errUnchanged) {
			return err
		}
		r, err := snapfile.Open(first.file.path)
		if err != nil {
			return err
		}
		defer r.Close()
		if !strings.Contains(r.Header.Note, `"others":2`) {
			_ = os.Remove(first.file.path)
			return fmt.Errorf("note %s", r.Header.Note)
		}
		return nil
	})
	first.stop()
	if err := c.Del(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Prefix+"a").Err(); err != nil {
		t.Fatal(err)
	}
	second := startWith(t, server.Addr(), folder)
	ready(t, second.Replica)
	holds(t, second.Replica, "a", "")
	holds(t, second.Replica, "b", "1")
}

// Replicas that share a folder save in turns, and not more often than necessary.
func TestSharedFolder(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		folder, p := t.TempDir(), newPublisher(t, addr)
		write(t, p, set("a", "1"))
		one, two := startWith(t, addr, folder), startWith(t, addr, folder)
		for _, r := range []*process{one, two} {
			ready(t, r.Replica)
			holds(t, r.Replica, "a", "1")
		}
		release, err := snapfile.Lock(one.file.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := one.Save(t.Context()); !errors.Is(err, snapfile.ErrLocked) {
			t.Error(err)
		}
		release()
		if err := one.Save(t.Context()); err != nil {
			t.Error(err)
		}
		if err := two.Save(t.Context()); !errors.Is(err, errUnchanged) {
			t.Error(err)
		}
		if s := two.Status(); s.File == nil || s.File.Entries != 1 {
			t.Errorf("%+v", s)
		}
		write(t, p, set("b", "1"))
		holds(t, two.Replica, "b", "1")
		if err := two.saver.save(t.Context(), time.Hour); !errors.Is(err, errUnchanged) { // another one has just saved
			t.Error(err)
		}
		if err := two.Save(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The limits of the disk are respected, and the old file stays.
func TestSaveWithoutRoom(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		folder, p := t.TempDir(), newPublisher(t, addr)
		write(t, p, set("a", strings.Repeat("x", 10_000)))
		r := startWith(t, addr, folder)
		ready(t, r.Replica)
		eventually.True(t, "the value", func() bool { _, found := r.Get([]byte("a")); return found == store.Hit })
		r.saver.maxSize = 1000
		if err := r.Save(t.Context()); !errors.Is(err, snapfile.ErrTooLarge) {
			t.Error(err)
		}
		r.saver.size = func() int64 { return 1 << 60 }
		if err := r.Save(t.Context()); !errors.Is(err, errNoSpace) {
			t.Error(err)
		}
		left, err := os.ReadDir(folder)
		if err != nil || len(left) != 1 || !strings.HasSuffix(left[0].Name(), ".lock") {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// Saves take place in the background, and under writes.
func TestSaveInTheBackground(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		folder, p := t.TempDir(), newPublisher(t, addr)
		r := startWith(t, addr, folder, func(cfg *Config) { cfg.File.Interval = time.Second })
		ready(t, r.Replica)
		i := 0
		eventually.Nil(t, func() error {
			write(t, p, set(fmt.Sprint(i%100), fmt.Sprint(i)))
			if i++; r.saver.saves.Load() < 2 {
				return errors.New("fewer than two saves")
			}
			return nil
		})
		r.saveAndStop(t)
		second := startWith(t, addr, folder)
		ready(t, second.Replica)
		for k := range 100 {
			if last := (i - 1 - k) / 100 * 100; last >= 0 && k < i {
				holds(t, second.Replica, fmt.Sprint(k), fmt.Sprint(last+k))
			}
		}
	})
}

func TestFileConfig(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(folder+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []FileConfig{
		{Folder: folder + "/f/none"}, {Folder: folder + "/f"}, {Folder: folder, Interval: time.Millisecond},
		{Folder: folder, Interval: time.Hour, MaxAge: time.Minute},
	} {
		if err := c.Complete(); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	c := FileConfig{Folder: folder}
	if err := c.Complete(); err != nil || c.Interval != 5*time.Minute || c.MaxAge != 24*time.Hour {
		t.Errorf("%+v, %v", c, err)
	}
	other := c
	other.Deployment = "x"
	if newFile(c, "a").path == newFile(c, "b").path || newFile(c, "a").path == newFile(other, "a").path {
		t.Error("the files of two data sets have the same name")
	}
}

// lacking is a store with an entry that a walk cannot show.
type lacking struct{ buckets }

func (l lacking) Visit(n int, visit func(key []byte, e store.Entry) bool) bool {
	return l.buckets.Visit(n, visit) && n != 0
}

// A save that finds damage keeps the old file.
func TestDamageIsNotSaved(t *testing.T) {
	b := redistest.StartEmbedded(t)
	write(t, newPublisher(t, b.Addr()), set("a", "1"))
	p := startWith(t, b.Addr(), t.TempDir())
	ready(t, p.Replica)
	p.saver.store = lacking{p.saver.store}
	if err := p.Save(t.Context()); !errors.Is(err, errDamaged) {
		t.Errorf("%v", err)
	}
	p.saver.store = p.saver.store.(lacking).buckets
	if err := p.Save(t.Context()); err != nil {
		t.Error(err)
	}
}
