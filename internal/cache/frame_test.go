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

var update = flag.Bool("update", false, "rewrite the golden files")

// message frames a write the way the publisher and the script do together.
func message(previous uint64, head Head, w Write, published time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, previous)
	b = binary.BigEndian.AppendUint64(b, head.Epoch)
	b = binary.BigEndian.AppendUint64(b, head.Version)
	b = binary.BigEndian.AppendUint64(b, head.WriteID)
	return string(appendFrame(b, &w, published))
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
		if *update {
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
	previous, rec, err := decodeMessage(goldens["set"])
	if err != nil {
		t.Fatal(err)
	}
	want := record{
		head: Head{0x1112131415161718, 7, 0x2122232425262728}, op: Set, published: time.Unix(1700000000, 123456789),
		tag: Tag{0xaa, 0xbb}, key: "fortune-1", value: `{"id":"fortune-1"}`,
	}
	if rec != want || previous != 0x0102030405060708 {
		t.Errorf("%+v after %x\nwant %+v", rec, previous, want)
	}
	if n := len(goldens["empty"]) - previousSize - stampSize - len("k"); n > 48 {
		t.Errorf("the frame adds %d bytes", n)
	}
	// The script compares the tag where it is stored.
	if stored := goldens["set"][previousSize:]; stored[tagOffset:tagOffset+16] != string(want.tag[:]) {
		t.Error("the tag is not at tagOffset")
	}
}

func TestFrameTruncated(t *testing.T) {
	for name, m := range goldens {
		for n := range len(m) {
			if _, _, err := decodeMessage(m[:n]); !errors.Is(err, errFrame) {
				t.Errorf("%s cut to %d of %d bytes: %v", name, n, len(m), err)
			}
		}
		if _, _, err := decodeMessage(m + "x"); !errors.Is(err, errFrame) {
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
		previous, rec, err := decodeMessage(s)
		if err != nil {
			if !errors.Is(err, errFrame) {
				t.Fatal(err)
			}
			return
		}
		// What decodes is exactly what encodes.
		again := message(previous, rec.head, Write{Op: rec.op, Key: rec.key, Value: []byte(rec.value), Tag: rec.tag}, rec.published)
		if !bytes.Equal([]byte(again), data) {
			t.Errorf("%x\nbecame %x", data, again)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	m := goldens["set"]
	garbage := strings.Repeat("\xff", 1<<20)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := decodeMessage(m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, _, err := decodeMessage(garbage); err == nil {
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
