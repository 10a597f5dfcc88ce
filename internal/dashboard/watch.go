package dashboard

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// watch tracks one post from the writer to the readers. token and deadline are set before written is closed.
type watch struct {
	sending  chan struct{} // closed just before the post is sent
	written  chan struct{} // closed when the writer has answered
	token    token
	deadline time.Time
}

// seen is a version that a reader has returned, and when.
type seen struct {
	token token
	at    time.Time
}

// poll requests the post from a reader once, calls first, and polls from the moment of sending on. It returns the
// time at which the reader first had the post. It calls count with the status of each answer.
func (w *watch) poll(ctx context.Context, client *http.Client, url string, first func(), count func(status int)) (time.Time, error) {
	var began time.Time
	var changes []seen // the state before, the post, and concurrent writes of the same post
	var etag string
	var lastErr error
	written := false
	for {
		s, tag, err := get(ctx, client, url, etag, count)
		lastErr = err
		if err == nil && (len(changes) == 0 || s.token != changes[len(changes)-1].token) {
			changes = append(changes, s)
			changes = changes[max(0, len(changes)-64):]
			etag = tag
		}
		if began.IsZero() {
			first()
			select {
			case <-w.sending:
			case <-ctx.Done():
				return time.Time{}, ctx.Err()
			}
			began = time.Now()
			continue
		}
		if !written {
			select {
			case <-w.written:
				written = true
			default:
			}
		}
		if written {
			for _, c := range changes {
				if c.token.reaches(w.token) {
					return c.at, nil
				}
			}
			if time.Now().After(w.deadline) {
				return time.Time{}, fmt.Errorf("not arrived after %s%s", watchTimeout, because(lastErr))
			}
		}
		pause := pollQuickly
		if time.Since(began) > quickFor {
			pause = pollSlowly
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return time.Time{}, fmt.Errorf("cancelled%s", because(lastErr))
		case <-timer.C:
		}
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return ": " + text
}

// get requests the post from a reader. A post that does not exist has the zero token.
func get(ctx context.Context, client *http.Client, url, etag string, count func(status int)) (seen, string, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return seen{}, "", err
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag) // no body for an unchanged post
	}
	res, err := client.Do(req)
	if err != nil {
		return seen{}, "", err
	}
	at := time.Now()
	count(res.StatusCode)
	_, err = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if err != nil {
		return seen{}, "", err
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusNotModified:
		t, err := parseToken(res.Header.Get("X-Version"))
		return seen{t, at}, res.Header.Get("ETag"), err
	case http.StatusNotFound:
		return seen{at: at}, "", nil
	default:
		return seen{}, "", fmt.Errorf("the reader answers %s", res.Status)
	}
}

// token is a version token: <epoch in hex>-<version>. The zero token names no version.
type token struct {
	text    string
	epoch   string
	version uint64
}

func parseToken(text string) (token, error) {
	epoch, number, ok := strings.Cut(text, "-")
	version, err := strconv.ParseUint(number, 10, 64)
	if !ok || epoch == "" || err != nil {
		return token{}, fmt.Errorf("%q is not a version token", text)
	}
	return token{text: text, epoch: epoch, version: version}, nil
}

// reaches reports whether t is the version of other or a later one of the same history.
func (t token) reaches(other token) bool { return t.epoch == other.epoch && t.version >= other.version }
