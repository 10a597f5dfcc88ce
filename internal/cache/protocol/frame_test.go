package protocol

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

// message encodes the message of a commit, as publisher and write.lua do together.
func message(previous uint64, head Head, published time.Time, writes ...Write) string {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, head.Epoch)
	b = binary.BigEndian.AppendUint64(b, head.Version)
	b = binary.BigEndian.AppendUint64(b, head.WriteID)
	b = binary.BigEndian.AppendUint64(b, previous)
	for i := range writes {
		b = AppendFrame(b, &writes[i], published)
	}
	return string(b)
}

var goldens = map[string]string{
	"set": message(0x0102030405060708, Head{0x1112131415161718, 7, 0x2122232425262728}, time.Unix(1700000000, 123456789),
		Write{Op: Set, Key: "fortune-1", Value: []byte(`{"id":"fortune-1"}`), Tag: Tag{0xaa, 0xbb}}),
	"sets":   message(4, Head{5, 2, 6}, time.Unix(0, 1), Write{Op: Set, Key: "a", Value: []byte("1")}, Write{Op: Set, Key: "b", Value: []byte("22")}),
	"delete": message(1, Head{2, 1 << 52, 3}, time.Unix(0, 0), Write{Op: Delete, Key: "grün"}),
	"empty":  message(0, Head{1, 1, 1}, time.Unix(0, 1), Write{Op: Set, Key: "k"}),
}

// The bytes on the wire and in Redis must not change by accident, because replicas of other builds read them.
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
	var c Commit
	if err := c.Decode(goldens["set"]); err != nil {
		t.Fatal(err)
	}
	head := Head{0x1112131415161718, 7, 0x2122232425262728}
	want := Record{Op: Set, Published: time.Unix(1700000000, 123456789), Tag: Tag{0xaa, 0xbb}, Key: "fortune-1", Value: `{"id":"fortune-1"}`}
	if len(c.Records) != 1 || c.Records[0] != want || c.Head != head || c.Version(0) != 7 || c.Previous != 0x0102030405060708 {
		t.Errorf("%+v\nwant %+v", c, want)
	}
	if got := MessageHead(goldens["set"]); got != head {
		t.Errorf("the head is %+v", got)
	}
	if n := len(goldens["empty"]) - MessageHeader - len("k"); n > 48 {
		t.Errorf("the frame adds %d bytes", n)
	}
	// A stored value is the stamp and the frame; write.lua compares the tag at tagOffset.
	stored := goldens["set"][:StampSize] + goldens["set"][MessageHeader:]
	if written, got, err := DecodeStored(stored); err != nil || got != want || written != head {
		t.Errorf("stored: %+v %+v, %v", written, got, err)
	}
	if stored[tagOffset:tagOffset+16] != string(want.Tag[:]) {
		t.Error("the tag is not at tagOffset")
	}
	if err := c.Decode(goldens["sets"]); err != nil {
		t.Fatal(err)
	}
	if len(c.Records) != 2 || c.Records[0].Key != "a" || c.Records[1].Value != "22" || c.Version(0) != 1 || c.Version(1) != 2 {
		t.Errorf("two sets: %+v", c)
	}
}

func TestFrameTruncated(t *testing.T) {
	var c Commit
	for name, m := range goldens {
		for n := range len(m) {
			if name == "sets" && n == len(m)-FrameHeader-3 {
				continue // ends with a whole frame; the channel does not cut messages
			}
			if err := c.Decode(m[:n]); !errors.Is(err, ErrFrame) {
				t.Errorf("%s cut to %d of %d bytes: %v", name, n, len(m), err)
			}
		}
		stored := m[:StampSize] + m[MessageHeader:]
		if _, _, err := DecodeStored(stored + "x"); !errors.Is(err, ErrFrame) {
			t.Errorf("%s with one more byte: %v", name, err)
		}
	}
	// More writes than versions.
	if err := c.Decode(message(4, Head{5, 1, 6}, time.Unix(0, 1), Write{Op: Set, Key: "a", Value: []byte("1")}, Write{Op: Set, Key: "b", Value: []byte("2")})); !errors.Is(err, ErrFrame) {
		t.Errorf("two writes up to version 1: %v", err)
	}
}

func TestLogged(t *testing.T) {
	long := Write{Op: Set, Key: strings.Repeat("k", maxKey)}
	entry := AppendLogged(AppendLogged(nil, &long), &Write{Op: Delete, Key: "b"})
	for n := range len(entry) + 1 {
		writes, ok := countLogged(string(entry[:n]))
		if whole := n == 3+maxKey || n == len(entry); ok != whole {
			t.Errorf("an entry cut to %d of %d bytes: %d writes, %v", n, len(entry), writes, ok)
		} else if n == len(entry) && writes != 2 {
			t.Errorf("%d writes", writes)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range goldens {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := string(data)
		_, _ = countLogged(s)
		_, _, _ = DecodeStored(s)
		head := MessageHead(s)
		var c Commit
		if err := c.Decode(s); err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatal(err)
			}
			return
		}
		// Encoding the decoded message returns the same bytes.
		again := []byte(message(c.Previous, head, time.Time{}))
		for _, r := range c.Records {
			again = AppendFrame(again, &Write{Op: r.Op, Key: r.Key, Value: []byte(r.Value), Tag: r.Tag}, r.Published)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%x\nbecame %x", data, again)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	m := goldens["sets"]
	garbage := strings.Repeat("\xff", 1<<20)
	var c Commit
	if n := testing.AllocsPerRun(100, func() {
		if err := c.Decode(m); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := c.Decode(garbage); err == nil {
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
