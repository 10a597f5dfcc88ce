package dashboard

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/state"
)

const (
	maxWriting   = 2                      // number of posts that are watched at the same time
	maxPost      = 2 << 20                // bytes of a request; the writer has its own, finer limits
	writeTimeout = 5 * time.Second        // longest wait for the writer's answer
	watchTimeout = 5 * time.Second        // longest wait for the post in all readers
	pollQuickly  = 100 * time.Microsecond // pause between two polls of a reader, at first
	pollSlowly   = 5 * time.Millisecond   // pause after quickFor
	quickFor     = 20 * time.Millisecond
	getTimeout   = 800 * time.Millisecond // longest wait for one answer of a reader
)

// event is one line of the answer of POST /api/write.
type event struct {
	Event   string `json:"event"`            // "written", "arrived", "missed" or "failed"
	Reader  string `json:"reader,omitempty"` // name of the reader; only in arrived and missed
	Status  int    `json:"status,omitempty"` // status of the writer; only in written and failed
	Version string `json:"version,omitempty"`
	// Time in milliseconds since just before the request to the writer was sent.
	Sent *float64 `json:"ms,omitempty"`
	// Time in milliseconds since the writer's answer; negative if the post arrived before it.
	Answered *float64 `json:"ms_from_answer,omitempty"`
	Detail   string   `json:"detail,omitempty"`
}

// handleWrite writes a post and watches it arrive in each reader. The answer has a line of JSON per event, sent as
// it happens. The readers are polled from the moment at which the post is sent, over connections that are open
// already, so that connecting does not count as propagation.
func (d *Dashboard) handleWrite(w http.ResponseWriter, r *http.Request) {
	select {
	case d.writing <- struct{}{}:
		defer func() { <-d.writing }()
	default:
		httpkit.Problem{Status: http.StatusTooManyRequests, Detail: "other posts are being watched: try again in a moment"}.WriteTo(w)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPost))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		httpkit.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "the post is too large", Limit: maxPost}.WriteTo(w)
		return
	} else if err != nil {
		return // the browser has disconnected
	}
	var post struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(body, &post); err != nil || post.ID == "" {
		httpkit.Problem{Status: http.StatusBadRequest, Detail: "send a post as JSON, with an id", Field: "id"}.WriteTo(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTimeout+watchTimeout)
	defer cancel()
	var readers []state.Process
	var writer state.Process
	for _, p := range d.cfg.Processes(ctx) {
		switch p.Role {
		case state.Reader:
			readers = append(readers, p)
		case state.Writer:
			writer = p
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	send := func(e event) {
		_ = out.Encode(e) // fails when the browser has disconnected, which ends ctx
		_ = flush.Flush()
	}
	d.writeAndWatch(ctx, writer, readers, submission{post.ID, body, r.Header.Get("Authorization")}, send)
}

// submission is a post as the page sends it.
type submission struct {
	id            string
	body          []byte
	authorization string // header of the page's request: every user of the machine can reach the page, so it has no token
}

// writeAndWatch calls send for each event, one call at a time. It ends within the bounds above.
func (d *Dashboard) writeAndWatch(ctx context.Context, writer state.Process, readers []state.Process, s submission, send func(event)) {
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	ctx, cancel := context.WithCancel(ctx)
	var pollers sync.WaitGroup
	defer pollers.Wait()
	defer cancel() // before the wait

	w := &watch{sending: make(chan struct{}), written: make(chan struct{})}
	connected := make(chan struct{}, len(readers))
	type arrival struct {
		reader string
		at     time.Time
		err    error
	}
	arrivals := make(chan arrival, len(readers))
	for _, p := range readers {
		pollers.Go(func() {
			first := func() { connected <- struct{}{} }
			count := func(status int) { d.polls.add(p.Name, status) }
			at, err := w.poll(ctx, client, "http://"+p.Address+"/post?id="+url.QueryEscape(s.id), first, count)
			arrivals <- arrival{p.Name, at, err}
		})
	}
	for range readers {
		<-connected // every reader has answered or refused once
	}

	sent := time.Now()
	close(w.sending)
	status, detail, err := d.post(ctx, client, writer, s, w)
	answered := time.Now()
	if err != nil {
		send(event{Event: "failed", Status: status, Detail: cmp.Or(detail, err.Error())})
		return
	}
	send(event{Event: "written", Status: status, Version: w.token.text, Sent: milliseconds(answered.Sub(sent))})
	w.deadline = answered.Add(watchTimeout)
	close(w.written)
	for range readers {
		a := <-arrivals
		if a.err != nil {
			send(event{Event: "missed", Reader: a.reader, Detail: a.err.Error()})
			continue
		}
		send(event{
			Event: "arrived", Reader: a.reader,
			Sent: milliseconds(a.at.Sub(sent)), Answered: milliseconds(a.at.Sub(answered)),
		})
	}
}

func milliseconds(d time.Duration) *float64 {
	ms := float64(d.Microseconds()) / 1000
	return &ms
}

// post sends the post to the writer and stores its version in w.
func (d *Dashboard) post(ctx context.Context, client *http.Client, writer state.Process, s submission, w *watch) (status int, detail string, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+writer.Address+"/create", bytes.NewReader(s.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if s.authorization != "" {
		req.Header.Set("Authorization", s.authorization)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "the writer does not answer", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return res.StatusCode, "", fmt.Errorf("read the writer's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		var p httpkit.Problem
		_ = json.Unmarshal(answer, &p) // without a problem document, Detail stays empty
		return res.StatusCode, p.Detail, fmt.Errorf("the writer answers %s", res.Status)
	}
	w.token, err = parseToken(res.Header.Get("X-Version"))
	if err != nil {
		return res.StatusCode, "", fmt.Errorf("the writer's X-Version: %w", err)
	}
	return res.StatusCode, "", nil
}
