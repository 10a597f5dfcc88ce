package auditor

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/httpkit"
)

// verdict is the result of the last comparison, for people. Any goroutine may use it.
type verdict struct {
	mu       sync.Mutex // guards all fields below
	report   report
	agreedAt time.Time
	wrong    map[string][]string // keys that were wrong, by reader
	wrongAt  time.Time
}

// report is the body of /status.
type report struct {
	Status       string              `json:"status"` // ready, or degraded if copies differ or the posts do not fit into AUDIT_MAX_SIZE
	Summary      string              `json:"summary"`
	Identical    *bool               `json:"identical"` // null while fewer than two readers can be compared
	Version      uint64              `json:"version"`
	Epoch        string              `json:"epoch"`
	Readers      []readerReport      `json:"readers"`
	Differ       [][2]string         `json:"differ"`               // pairs of copies, "Redis" included
	RedisSeconds *float64            `json:"redis_agreed_seconds"` // age of the last scan of Redis with which the readers agreed; null if there was none
	CopyComplete *bool               `json:"copy_complete"`        // whether all posts fit into AUDIT_MAX_SIZE; null before the first scan of Redis
	Wrong        map[string][]string `json:"wrong,omitempty"`      // keys that were last found to be wrong, by reader
}

// readerReport is the state of one reader.
type readerReport struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	State   string `json:"state"` // compared, behind, not comparable or unreachable
	Problem string `json:"problem,omitempty"`
	// Snapshots counts those that the reader was made to load since it was last identical with Redis. If it still differs
	// at NextSnapshot, it is made to load another one.
	Snapshots    int        `json:"snapshots,omitempty"`
	NextSnapshot *time.Time `json:"next_snapshot,omitempty"`
}

const (
	stateCompared      = "compared"
	stateBehind        = "at another version" // has no head in common with the others
	stateNotComparable = "not comparable"     // does not hold all posts, or catches up
	stateUnreachable   = "unreachable"
)

// set stores the result of a comparison by a.
func (v *verdict) set(readers []reader, among, all *audit.Result, a *auditor) {
	r := report{Status: "ready", Version: among.Head.Version, Epoch: fmt.Sprintf("%016x", among.Head.Epoch), Readers: []readerReport{}, Differ: all.Differ}
	if r.Differ == nil {
		r.Differ = [][2]string{}
	}
	for _, answer := range readers {
		one := readerReport{Name: answer.name, Address: answer.addr, State: stateNotComparable}
		switch {
		case answer.err != nil:
			one.State, one.Problem = stateUnreachable, answer.err.Error()
		case slices.Contains(among.Compared, answer.name):
			one.State = stateCompared
		case len(answer.digests) > 0:
			one.State = stateBehind
		}
		if repair, ok := a.repairs[answer.name]; ok {
			one.Snapshots, one.NextSnapshot = repair.snapshots, &repair.next
		}
		r.Readers = append(r.Readers, one)
	}
	slices.SortFunc(r.Readers, func(a, b readerReport) int { return cmp.Compare(a.Name, b.Name) })
	switch {
	case len(all.Differ) > 0:
		r.Status = "degraded"
		identical := len(among.Differ) == 0 && among.Identical()
		r.Identical = &identical
	case among.Identical():
		identical := true
		r.Identical = &identical
	}
	if r.CopyComplete = a.fits; a.fits != nil && !*a.fits {
		r.Status = "degraded"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report, v.agreedAt = r, a.agreedAt
}

// name records the keys that were wrong in a reader.
func (v *verdict) name(reader string, keys []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wrong == nil {
		v.wrong = make(map[string][]string)
	}
	v.wrong[reader], v.wrongAt = keys, time.Now()
}

// get returns the report with its summary.
func (v *verdict) get() report {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.report
	if r.Status == "" {
		r.Status, r.Readers, r.Differ = "ready", []readerReport{}, [][2]string{}
	}
	r.Wrong = make(map[string][]string, len(v.wrong))
	for name, keys := range v.wrong {
		r.Wrong[name] = keys
	}
	if !v.agreedAt.IsZero() {
		age := time.Since(v.agreedAt).Seconds()
		r.RedisSeconds = &age
	}
	r.Summary = r.summary()
	return r
}

// summary returns the verdict in a sentence.
func (r *report) summary() string {
	var parts, compared []string
	excluded := map[string][]string{}
	for _, one := range r.Readers {
		if one.State == stateCompared {
			compared = append(compared, one.Name)
		} else {
			excluded[one.State] = append(excluded[one.State], one.Name)
		}
	}
	switch {
	case len(r.Differ) > 0:
		var pairs []string
		for _, p := range r.Differ {
			pairs = append(pairs, p[0]+" and "+p[1])
		}
		parts = append(parts, "DIFFERENT POSTS at the same version: "+strings.Join(pairs, ", "))
	case len(compared) >= 2:
		parts = append(parts, fmt.Sprintf("%d readers identical at version %s", len(compared), humanize.Comma(int64(r.Version))))
	default:
		parts = append(parts, "the readers cannot be compared now")
	}
	for _, state := range []string{stateBehind, stateNotComparable, stateUnreachable} {
		if names := excluded[state]; len(names) > 0 && len(r.Differ) == 0 {
			parts = append(parts, strings.Join(names, ", ")+" "+state)
		}
	}
	for _, one := range r.Readers {
		if one.NextSnapshot != nil {
			parts = append(parts, fmt.Sprintf("%s was repaired %d times, next try in %s", one.Name, one.Snapshots, max(time.Until(*one.NextSnapshot), 0).Round(time.Second)))
		}
	}
	if r.CopyComplete != nil && !*r.CopyComplete {
		parts = append(parts, "Redis cannot be compared, and no reader repaired: the posts do not fit into AUDIT_MAX_SIZE")
	}
	if r.RedisSeconds != nil {
		parts = append(parts, fmt.Sprintf("Redis agreed %s ago", time.Duration(*r.RedisSeconds*float64(time.Second)).Round(time.Second)))
	} else {
		parts = append(parts, "Redis has not been compared yet")
	}
	return strings.Join(parts, "; ")
}

func (v *verdict) serveStatus(w http.ResponseWriter, _ *http.Request) {
	httpkit.JSON(w, http.StatusOK, v.get())
}

// serveReady answers 200 while the auditor runs, also if copies differ: restarting it would not help.
func (v *verdict) serveReady(w http.ResponseWriter, _ *http.Request) {
	r := v.get()
	httpkit.JSON(w, http.StatusOK, map[string]any{"status": r.Status, "reasons": []string{r.Summary}})
}
