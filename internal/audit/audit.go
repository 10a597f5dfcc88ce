// Package audit is how the copies of the data set are compared: what a reader tells about its memory, over HTTP, and what
// follows from the answers of several readers.
package audit

import (
	"fmt"
	"strconv"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
)

// Paths of the endpoints. The gateway does not forward them.
const (
	Path         = "/audit"          // GET: Report
	BucketsPath  = "/audit/buckets"  // GET: Listing with the digests of all buckets
	KeysPath     = "/audit/keys"     // GET ?bucket=1&bucket=2: Listing with the entries of these buckets
	SnapshotPath = "/audit/snapshot" // POST with SnapshotHeader: loads a snapshot
)

// SnapshotHeader is required with SnapshotPath. A web page of another origin cannot send it.
const SnapshotHeader = "X-Audit"

// Digest is the digest of a data set at a head, in JSON. Numbers of 64 random bits are hex, because JSON numbers are often
// read as floats.
type Digest struct {
	Value   string `json:"value"`
	Version uint64 `json:"version"`
	Epoch   string `json:"epoch"`
	WriteID string `json:"write_id"`
}

// NewDigest converts a digest; it returns nil for nil.
func NewDigest(d *replica.Digest) *Digest {
	if d == nil {
		return nil
	}
	return &Digest{Value: hex(d.Value), Version: d.Head.Version, Epoch: hex(d.Head.Epoch), WriteID: hex(d.Head.WriteID)}
}

// decode converts d back.
func (d *Digest) decode() (replica.Digest, error) {
	head, err := decodeHead(d.Version, d.Epoch, d.WriteID)
	if err != nil {
		return replica.Digest{}, err
	}
	value, err := parseHex(d.Value)
	return replica.Digest{Head: head, Value: value}, err
}

// Report is what a reader tells about its digests.
type Report struct {
	PodID   string   `json:"pod_id"`
	Entries int64    `json:"entries"`
	Digests []Digest `json:"digests"` // at recent heads, oldest first; empty while the reader cannot be compared
}

// Listing is a part of a data set at a head.
type Listing struct {
	Version uint64   `json:"version"`
	Epoch   string   `json:"epoch"`
	WriteID string   `json:"write_id"`
	Buckets []string `json:"buckets,omitempty"` // digest of each bucket
	Keys    []Key    `json:"keys,omitempty"`
	Partial bool     `json:"partial,omitempty"` // Keys has the first replica.MaxKeys only
}

// Key is an entry in a Listing.
type Key struct {
	Key      []byte `json:"key"` // in base64, because a key need not be text
	Version  uint64 `json:"version"`
	Checksum string `json:"checksum"` // of the value
}

func newListing(at protocol.Head) Listing {
	return Listing{Version: at.Version, Epoch: hex(at.Epoch), WriteID: hex(at.WriteID)}
}

// Part is a decoded Listing.
type Part struct {
	Head    protocol.Head
	Buckets []uint64
	Items   []store.Item
	Partial bool
}

func (l *Listing) decode() (p Part, err error) {
	if p.Head, err = decodeHead(l.Version, l.Epoch, l.WriteID); err != nil {
		return p, err
	}
	for _, text := range l.Buckets {
		d, err := parseHex(text)
		if err != nil {
			return p, err
		}
		p.Buckets = append(p.Buckets, d)
	}
	if n := len(p.Buckets); n != 0 && n != replica.Buckets {
		return p, fmt.Errorf("%d buckets, want %d", n, replica.Buckets)
	}
	for _, k := range l.Keys {
		sum, err := parseHex(k.Checksum)
		if err != nil {
			return p, err
		}
		p.Items = append(p.Items, store.Item{Key: string(k.Key), Version: k.Version, Checksum: sum})
	}
	p.Partial = l.Partial
	return p, nil
}

func decodeHead(version uint64, epoch, writeID string) (h protocol.Head, err error) {
	h.Version = version
	if h.Epoch, err = parseHex(epoch); err != nil {
		return h, err
	}
	h.WriteID, err = parseHex(writeID)
	return h, err
}

func hex(v uint64) string { return fmt.Sprintf("%016x", v) }

func parseHex(text string) (uint64, error) {
	v, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, fmt.Errorf("%.40q: want 16 hex digits", text)
	}
	return v, nil
}
