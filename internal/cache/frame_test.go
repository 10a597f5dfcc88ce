package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("update", false, "rewrite the golden files")

// message frames a write the way the publisher and the script do together.
func message(previous uint64, head Head, w Write, published time.Time) string {
	b := make([]byte, 4)
	b = binary.BigEndian.AppendUint64(b, previous)
	b = binary.BigEndian.AppendUint64(b, head.Epoch)
	b = binary.BigEndian.AppendUint64(b, head.Version)
	b = binary.BigEndian.AppendUint64(b, head.WriteID)
	b = appendFrame(b, &w, published)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return string(b)
}

var goldens = map[string]string{
	"set": message(0x0102030405060708, Head{0x1112131415161718, 7, 0x2122232425262728},
		Write{Op: Set, Key: "fortune-1", Value: []byte(`{"id":"fortune-1"}`), Tag: Tag{0xaa, 0xbb}}, time.Unix(1700000000, 123456789)),
	"delete": message(1, Head{2, 1 << 52, 3}, Write{Op: Delete, Key: "grün"}, time.Unix(0, 0)),
	"empty":  message(0, Head{1, 1, 1}, Write{Op: Set, Key: "k"}, time.Unix(0, 1)),
}

// The bytes on the wire and in Redis may not change by accident: replicas of another build read them.
func TestFrameGolden(t *testing.T) {
	for name, got := range goldens {
		file := filepath.Join("testdata", name+".hex")
		if *rewrite {
			if err := os.WriteFile(file, []byte(hex.Dump([]byte(got))), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if hex.Dump([]byte(got)) != string(want) {
			t.Errorf("%s:\n%swant\n%s", name, hex.Dump([]byte(got)), want)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	u, rest, err := nextUpdate(goldens["set"] + goldens["delete"])
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		head: Head{0x1112131415161718, 7, 0x2122232425262728}, op: Set, published: time.Unix(1700000000, 123456789),
		tag: Tag{0xaa, 0xbb}, key: "fortune-1", value: `{"id":"fortune-1"}`,
	}
	if u.record != want || u.previous != 0x0102030405060708 || rest != goldens["delete"] {
		t.Errorf("%+v, then %q\nwant %+v", u, rest, want)
	}
	if epoch, version := lastHead(goldens["set"] + goldens["delete"]); epoch != 2 || version != 1<<52 {
		t.Errorf("the last head is %x, %d", epoch, version)
	}
	if n := len(goldens["empty"]) - 4 - previousSize - stampSize - len("k"); n > 48 {
		t.Errorf("the frame adds %d bytes", n)
	}
	// The script compares the tag where it is stored.
	if stored := goldens["set"][4+previousSize:]; stored[tagOffset:tagOffset+16] != string(want.tag[:]) {
		t.Error("the tag is not at tagOffset")
	}
}

// The last write of a message is found whatever the lengths of those before it.
func TestLastHead(t *testing.T) {
	for n := range 600 {
		first := message(1, Head{5, 1, 2}, Write{Op: Set, Key: "k", Value: make([]byte, n)}, time.Unix(0, 1))
		second := message(2, Head{5, 2, 3}, Write{Op: Delete, Key: "l"}, time.Unix(0, 1))
		if epoch, version := lastHead(first + second); epoch != 5 || version != 2 {
			t.Fatalf("after a value of %d bytes: epoch %x, version %d", n, epoch, version)
		}
	}
}

func TestFrameTruncated(t *testing.T) {
	for name, m := range goldens {
		for n := range len(m) {
			if _, _, err := nextUpdate(m[:n]); !errors.Is(err, errFrame) {
				t.Errorf("%s cut to %d of %d bytes: %v", name, n, len(m), err)
			}
		}
		stored := m[4+previousSize:]
		if _, err := decodeStored(stored + "x"); !errors.Is(err, errFrame) {
			t.Errorf("%s with a byte too many: %v", name, err)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range goldens {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := string(data)
		lastHead(s)
		u, rest, err := nextUpdate(s)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Fatal(err)
			}
			return
		}
		// What decodes is exactly what encodes.
		again := message(u.previous, u.head, Write{Op: u.op, Key: u.key, Value: []byte(u.value), Tag: u.tag}, u.published)
		if !bytes.Equal([]byte(again+rest), data) {
			t.Errorf("%x\nbecame %x", data, again+rest)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	m := goldens["set"]
	garbage := strings.Repeat("\xff", 1<<20)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := nextUpdate(m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, _, err := nextUpdate(garbage); err == nil {
		t.Error("garbage was decoded")
	}
}

func TestToken(t *testing.T) {
	for _, want := range []Token{{}, {1, 2}, {1<<64 - 1, 1<<64 - 1}, {0xabcdef, 1e15}} {
		got, err := ParseToken(want.String())
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
	for _, bad := range []string{"", "-", "1-1", "000000000000000g-1", "0000000000000001-", "0000000000000001-x", "0000000000000001--1",
		"0000000000000001-18446744073709551616", "0000000000000001-1 ", "00000000000000001-1", "+000000000000001-1"} {
		if got, err := ParseToken(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}
