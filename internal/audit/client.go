package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"heavy-read-api/internal/cache/replica"
)

// Client asks readers. Its methods block at most until ctx is done, or for ten seconds.
type Client struct{ http *http.Client }

// NewClient returns a Client. It opens a connection for each request, so that a reader that hangs fails alone and at once.
func NewClient() *Client {
	return &Client{&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}}
}

// maxAnswer bounds an answer, in bytes: MaxKeys keys of the largest size in base64 are 45 MB, and posts have short keys.
const maxAnswer = 64 << 20

// Report returns the digests of the reader at addr (host:port), oldest first, and its name.
func (c *Client) Report(ctx context.Context, addr string) (name string, digests []replica.Digest, err error) {
	var body Report
	if err := c.get(ctx, addr, Path, &body); err != nil {
		return "", nil, err
	}
	for i := range body.Digests {
		d, err := body.Digests[i].decode()
		if err != nil {
			return "", nil, fmt.Errorf("digests of %s: %w", addr, err)
		}
		digests = append(digests, d)
	}
	return body.PodID, digests, nil
}

// Buckets returns the digests of the buckets of the reader at addr.
func (c *Client) Buckets(ctx context.Context, addr string) (Part, error) {
	return c.part(ctx, addr, BucketsPath)
}

// Keys returns the entries of some buckets of the reader at addr.
func (c *Client) Keys(ctx context.Context, addr string, buckets []int) (Part, error) {
	q := url.Values{}
	for _, b := range buckets {
		q.Add("bucket", strconv.Itoa(b))
	}
	return c.part(ctx, addr, KeysPath+"?"+q.Encode())
}

func (c *Client) part(ctx context.Context, addr, target string) (Part, error) {
	var body Listing
	if err := c.get(ctx, addr, target, &body); err != nil {
		return Part{}, err
	}
	return body.decode()
}

// Reload makes the reader at addr load a snapshot.
func (c *Client) Reload(ctx context.Context, addr, reason string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+SnapshotPath, nil)
	if err != nil {
		return err
	}
	req.Header.Set(SnapshotHeader, reason)
	return c.do(req, http.StatusAccepted, nil)
}

func (c *Client) get(ctx context.Context, addr, target string, body any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+target, nil)
	if err != nil {
		return err
	}
	return c.do(req, http.StatusOK, body)
}

func (c *Client) do(req *http.Request, want int, body any) error {
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return fmt.Errorf("%s %s answers %s: %s", req.Method, req.URL, res.Status, text)
	}
	if body == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(body)
}
