package suite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// loadTimeout bounds an import.
const loadTimeout = 10 * time.Minute

// load makes sure that the posts are there, and that all readers have them. before is called when
// they have to be written. It returns how long the import took, 0 when there was none.
func (s *suite) load(ctx context.Context, before func(context.Context) error) (time.Duration, error) {
	there, err := s.there(ctx)
	if err != nil || there {
		return 0, err
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return 0, err
		}
	}
	s.progress.Step(fmt.Sprintf("loading %d posts", s.posts), time.Duration(s.posts)*25*time.Microsecond)
	began := time.Now()
	if err := s.importPosts(ctx); err != nil {
		return 0, err
	}
	took := time.Since(began)
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return 0, err
	}
	if err := target.Await(ctx, time.Minute, addrs...); err != nil {
		return 0, err
	}
	if there, err = s.there(ctx); err == nil && !there {
		err = load.Wrong("%d posts were imported, but not all of them are served", s.posts)
	}
	return took, err
}

// there reports whether the posts are what they have to be, by a sample of them.
func (s *suite) there(ctx context.Context) (bool, error) {
	conn, err := wire.Dial(ctx, s.addresses.Direct)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	const sample = 1000
	for i := range min(sample, s.posts) {
		rank := i * (s.posts - 1) / max(1, min(sample, s.posts)-1)
		a, err := conn.Get("/post?id="+workload.MixID(rank), "")
		if err != nil {
			return false, err
		}
		if a.Status != http.StatusOK || s.mix.Check(rank, 0, a.Body) != nil {
			return false, ctx.Err()
		}
	}
	return true, ctx.Err()
}

// importPosts writes the posts through the writer's import.
func (s *suite) importPosts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	r, w := io.Pipe()
	defer r.Close() // ends the goroutine when the writer stops reading
	go func() {
		out := bufio.NewWriterSize(w, 1<<20)
		var line []byte
		for rank := range s.posts {
			var err error
			if line, err = workload.AppendLine(line[:0], s.mix.Post(rank, 0)); err == nil {
				_, err = out.Write(line)
			}
			if err != nil {
				_ = w.CloseWithError(err)
				return
			}
		}
		_ = w.CloseWithError(out.Flush())
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addresses.Writer+"/import", r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if s.addresses.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.addresses.Token)
	}
	res, err := target.Client.Do(req)
	if err != nil {
		return fmt.Errorf("import the posts: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("import the posts: %w", err)
	}
	lines := bytes.Split(bytes.TrimSpace(answer), []byte("\n"))
	var summary struct {
		Status  string
		Written int
	}
	if err := json.Unmarshal(lines[len(lines)-1], &summary); err != nil || res.StatusCode != http.StatusOK || summary.Status != "done" || summary.Written != s.posts {
		return fmt.Errorf("import the posts: the writer answers %s: %.500s", res.Status, answer)
	}
	return nil
}
