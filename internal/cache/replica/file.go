package replica

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/census"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/snapfile"
)

// FileConfig configures the snapshot file, from which a replica starts before it catches up. Replicas of one data set
// may share a folder: one of them saves at a time, and all of them load what it has saved.
type FileConfig struct {
	Folder   string        // is made if it does not exist; "" for no file
	Interval time.Duration // time between two saves; default 5 min, at least 1 s
	MaxAge   time.Duration // a file whose data have not been current for longer is ignored; default 24 h
	// Deployment identifies the Redis deployment. A file of another one is ignored, because without Redis nothing else
	// shows that it is of other data.
	Deployment string
}

// Complete sets the defaults, validates the configuration and makes the folder.
func (c *FileConfig) Complete() error {
	if c.Folder == "" {
		return nil
	}
	c.Interval = cmp.Or(c.Interval, 5*time.Minute)
	c.MaxAge = cmp.Or(c.MaxAge, 24*time.Hour)
	switch {
	case c.Interval < time.Second:
		return fmt.Errorf("%v between two saves of the snapshot file: use at least 1s", c.Interval)
	case c.MaxAge < c.Interval:
		return fmt.Errorf("a maximum age of %v for the snapshot file, which is saved every %v: use a larger one", c.MaxAge, c.Interval)
	}
	if err := os.MkdirAll(c.Folder, 0o700); err != nil {
		return fmt.Errorf("make the folder of the snapshot file: %w", err)
	}
	return nil
}

// file identifies the snapshot file of a replica and publishes its state.
type file struct {
	FileConfig
	path     string
	identity string
	status   atomic.Pointer[FileStatus] // nil without a valid file
}

// FileStatus describes the snapshot file that the replica has loaded or saved last, or that another one has saved.
type FileStatus struct {
	Current time.Time // time at which its data were last known to be current
	Entries uint64
	Bytes   int64
}

// newFile returns nil if the configuration names no folder. The name of the file depends on the data set, so that
// different data sets may share a folder.
func newFile(c FileConfig, namespace string) *file {
	if c.Folder == "" {
		return nil
	}
	f := &file{FileConfig: c}
	f.identity = fmt.Sprintf("posts of format %d in %s of %s", protocol.FrameFormat, namespace, c.Deployment)
	name := fnv.New64a()
	_, _ = name.Write([]byte(f.identity))
	f.path = filepath.Join(c.Folder, fmt.Sprintf("%016x.snapshot", name.Sum64()))
	return f
}

// Reasons for which a snapshot file is ignored.
var (
	errForeignFile = errors.New("it is of another data set, or of another version of this program")
	errOldFile     = errors.New("it is too old")
)

// check reports why a file with this header must not be loaded.
func (f *file) check(h *snapfile.Header, now time.Time) error {
	switch age := now.Sub(h.Current); {
	case h.Identity != f.identity:
		return fmt.Errorf("%w: %q and not %q", errForeignFile, h.Identity, f.identity)
	case h.Start.Epoch == 0:
		return errForeignFile
	case age > f.MaxAge:
		return fmt.Errorf("%w: its data were last known to be current %v ago, and the limit is %v", errOldFile, age.Round(time.Second), f.MaxAge)
	}
	return nil
}

func (f *file) note(h *snapfile.Header, s *snapfile.Summary) {
	f.status.Store(&FileStatus{Current: h.Current, Entries: s.Entries, Bytes: s.Size})
}

// fileNote is the note in a file: the counters with which a vanishWatch detects that values were lost while no replica
// ran.
type fileNote struct {
	Run     string `json:"run"`
	Evicted uint64 `json:"evicted"`
	Expired uint64 `json:"expired"`
	Others  int64  `json:"others"`
	Suspect string `json:"suspect,omitempty"` // reason for a snapshot that has not been taken yet
}

// note returns the counters for a file.
func (w *vanishWatch) note() string {
	b, _ := json.Marshal(fileNote{w.last.Run, w.last.Evicted, w.last.Expired, w.others, w.suspect}) // cannot fail
	return string(b)
}

// resume continues with the counters of a file.
func (w *vanishWatch) resume(note string) {
	var n fileNote
	if json.Unmarshal([]byte(note), &n) == nil {
		w.last = census.Census{Run: n.Run, Evicted: n.Evicted, Expired: n.Expired}
		w.others, w.suspect = n.Others, n.Suspect
	}
}
