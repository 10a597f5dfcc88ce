package audit

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
)

// inspectTimeout bounds the wait until the replica can be inspected.
const inspectTimeout = 2 * time.Second

// Register adds the endpoints of a replica to a router.
func Register(router *httpkit.Router, r *replica.Replica, podID string) {
	h := handler{r, podID}
	router.Handle(Path, httpkit.Read(h.report))
	router.Handle(BucketsPath, httpkit.Read(h.buckets))
	router.Handle(KeysPath, httpkit.Read(h.keys))
	router.Handle(SnapshotPath, httpkit.Methods{http.MethodPost: h.snapshot})
}

type handler struct {
	replica *replica.Replica
	podID   string
}

func (h handler) report(w http.ResponseWriter, _ *http.Request) {
	body := Report{PodID: h.podID, Entries: h.replica.Status().Entries, Digests: []Digest{}}
	for _, d := range h.replica.Digests() {
		body.Digests = append(body.Digests, *NewDigest(&d))
	}
	httpkit.JSON(w, http.StatusOK, body)
}

func (h handler) buckets(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), inspectTimeout)
	defer cancel()
	at, digests, err := h.replica.Buckets(ctx)
	if err != nil {
		fail(w, err)
		return
	}
	body := newListing(at)
	for _, d := range digests {
		body.Buckets = append(body.Buckets, hex(d))
	}
	httpkit.JSON(w, http.StatusOK, body)
}

func (h handler) keys(w http.ResponseWriter, r *http.Request) {
	var buckets []int
	for _, text := range r.URL.Query()["bucket"] {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n >= replica.Buckets || len(buckets) == replica.MaxBuckets {
			httpkit.Problem{Status: http.StatusBadRequest, Field: "bucket", Detail: "send up to " + strconv.Itoa(replica.MaxBuckets) +
				" parameters named bucket, each a number below " + strconv.Itoa(replica.Buckets)}.WriteTo(w)
			return
		}
		buckets = append(buckets, n)
	}
	ctx, cancel := context.WithTimeout(r.Context(), inspectTimeout)
	defer cancel()
	at, items, all, err := h.replica.Keys(ctx, buckets)
	if err != nil {
		fail(w, err)
		return
	}
	body := newListing(at)
	body.Partial = !all
	for _, i := range items {
		body.Keys = append(body.Keys, Key{Key: []byte(i.Key), Version: i.Version, Checksum: hex(i.Checksum)})
	}
	httpkit.JSON(w, http.StatusOK, body)
}

func (h handler) snapshot(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(SnapshotHeader) == "" {
		httpkit.Problem{Status: http.StatusForbidden, Field: SnapshotHeader, Detail: "send the header " + SnapshotHeader + " with the reason for the snapshot"}.WriteTo(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), inspectTimeout)
	defer cancel()
	if err := h.replica.Reload(ctx); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// fail answers 503 with the reason.
func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "1")
	status := http.StatusServiceUnavailable
	if errors.Is(err, replica.ErrBusy) {
		status = http.StatusTooManyRequests
	}
	httpkit.Problem{Status: status, Detail: err.Error()}.WriteTo(w)
}
