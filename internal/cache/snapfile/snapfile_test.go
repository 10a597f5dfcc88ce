package snapfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var testHeader = Header{Identity: "posts", Note: "note", Start: Head{1, 2, 3}, Current: time.Unix(1_700_000_000, 5)}

var testAhead = Head{1, 9, 8}

// entries returns n different entries; every tenth is large enough for a block of its own.
func entries(n int) []Entry {
	all := make([]Entry, n)
	for i := range all {
		all[i] = Entry{Key: fmt.Sprint("key", i), Value: strings.Repeat(fmt.Sprint(i, " "), i), Version: uint64(i)}
		if i%10 == 9 {
			all[i].Value = strings.Repeat("x", blockSize+i)
		}
	}
	return all
}

func save(t testing.TB, path string, h Header, all []Entry) Summary {
	t.Helper()
	w, err := Create(path, h, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if err := w.Add([]byte(e.Key), e.Value, e.Version); err != nil {
			t.Fatal(err)
		}
	}
	s, err := w.Commit(testAhead, true)
	if err != nil {
		t.Fatal(err)
	}
	w.Abort() // has no effect
	return s
}

// read returns what Read passes to use until its error.
func (r *Reader) read(t testing.TB) (all []Entry, err error) {
	err = r.Read(t.Context(), func(block []Entry) error {
		for _, e := range block {
			all = append(all, Entry{strings.Clone(e.Key), strings.Clone(e.Value), e.Version})
		}
		return nil
	})
	return all, err
}

func load(t testing.TB, path string) (*Reader, []Entry) {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := r.read(t)
	if err != nil {
		t.Fatal(err)
	}
	return r, all
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, n := range []int{0, 1, 100} {
		want := entries(n)
		s := save(t, path, testHeader, want)
		r, got := load(t, path)
		if !slices.Equal(got, want) || r.Header.Identity != testHeader.Identity || r.Header.Note != testHeader.Note ||
			r.Header.Start != testHeader.Start || !r.Header.Current.Equal(testHeader.Current) {
			t.Errorf("%d entries: read %d, header %+v", n, len(got), r.Header)
		}
		if info, err := os.Stat(path); err != nil || r.Summary != s || s != (Summary{testAhead, true, uint64(n), info.Size()}) || info.Mode().Perm() != 0o600 {
			t.Errorf("%d entries: summary %+v, then %+v; %v", n, s, r.Summary, err)
		}
	}
	if _, err := Open(path + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// small is the content of a file with several blocks, small enough to be damaged at every byte.
func small(t testing.TB) (content []byte, all []Entry) {
	var file sink
	w := newWriter("", &file, 1<<20)
	if err := w.begin(testHeader); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		e := Entry{Key: fmt.Sprint("k", i), Value: strings.Repeat("v", i), Version: uint64(i)}
		all = append(all, e)
		if err := w.Add([]byte(e.Key), e.Value, e.Version); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 {
			if err := w.writeBlock(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.end.position, w.end.ahead = w.size, testAhead
	if err := w.writeAll(w.end.encode()); err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), all
}

type sink struct{ bytes.Buffer }

func (*sink) Sync() error  { return nil }
func (*sink) Close() error { return nil }

// check reads content and reports whether that succeeds. Entries that it reads must be those of want.
func check(t testing.TB, content []byte, want []Entry) (ok bool) {
	t.Helper()
	r, err := newReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		return false
	}
	got, err := r.read(t)
	if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) || err == nil && len(got) != len(want) {
		t.Fatalf("read %v: %v", got, err)
	}
	if err != nil && !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	return err == nil
}

// A file that is cut, longer or changed at any byte is refused, and no entry of it is wrong.
func TestDamage(t *testing.T) {
	content, all := small(t)
	if !check(t, content, all) {
		t.Fatal("the file cannot be read")
	}
	for i := range content {
		if check(t, content[:i], all) {
			t.Errorf("cut at byte %d of %d: no error", i, len(content))
		}
		for _, flip := range []byte{1, 0x80, 0xff} {
			changed := slices.Clone(content)
			changed[i] ^= flip
			if check(t, changed, all) {
				t.Errorf("byte %d changed: no error", i)
			}
		}
		if check(t, slices.Insert(slices.Clone(content), i, 0), all) {
			t.Errorf("byte inserted at %d: no error", i)
		}
	}
	if check(t, append(slices.Clone(content), content...), all) {
		t.Error("the file twice: no error")
	}
}

// A block in another place, or of another file, is refused.
func TestMisplacedBlock(t *testing.T) {
	one, all := small(t)
	two, _ := small(t)
	r, err := newReader(bytes.NewReader(one), int64(len(one)))
	if err != nil {
		t.Fatal(err)
	}
	foreign := slices.Concat(one[:r.first], two[r.first:len(two)-trailerSize], one[len(one)-trailerSize:])
	if check(t, foreign, all) {
		t.Error("blocks of another file: no error")
	}
}

func FuzzRead(f *testing.F) {
	content, all := small(f)
	f.Add(0, 0, []byte{})
	f.Add(30, 4, []byte("abcd"))
	f.Add(len(content)-trailerSize, trailerSize, []byte{})
	f.Fuzz(func(t *testing.T, at, removed int, inserted []byte) {
		if at < 0 || removed < 0 || at > len(content) || removed > len(content)-at {
			return
		}
		damaged := slices.Concat(content[:at], inserted, content[at+removed:])
		if check(t, damaged, all) && !bytes.Equal(damaged, content) {
			t.Error("a damaged file was read")
		}
		// Arbitrary bytes as entries, with a valid checksum: they are decoded or refused.
		(&block{bytes: inserted}).decode()
	})
}

func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	w, err := Create(path, testHeader, 2*blockSize)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err = w.Add([]byte("k"), strings.Repeat("v", 1000), 1); err != nil {
			break
		}
	}
	if info, _ := os.Stat(path + temporary); !errors.Is(err, ErrTooLarge) || info.Size() > 2*blockSize {
		t.Errorf("%v, %d bytes", err, info.Size())
	}
	w.Abort()
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if err := w.Add(make([]byte, maxKey+1), "", 1); err == nil {
		t.Error("added a key that is too long")
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path+temporary, []byte("left by a killed process"), 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + temporary); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file of a killed process is still there:", err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	release()
	if release, err = Lock(path); err != nil {
		t.Fatal(err)
	}
	release()
}

func TestFree(t *testing.T) {
	if n, err := Free(t.TempDir()); err != nil || n <= 0 {
		t.Error(n, err)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that does not exist has free space")
	}
}

// Read stops when its caller does.
func TestReadStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	save(t, path, testHeader, entries(200))
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	failed := errors.New("stop")
	calls := 0
	if err := r.Read(t.Context(), func([]Entry) error { calls++; return failed }); !errors.Is(err, failed) || calls != 1 {
		t.Error(err, calls)
	}
}
