package suite

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

// loadTimeout bounds an import.
const loadTimeout = 10 * time.Minute

// load imports the posts unless they exist already, and waits until all readers have them. before is called
// before an import. load returns how long the import took, 0 when there was none.
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
	err = importPosts(ctx, s.addresses.Writer, s.addresses.Token, s.posts, func(rank int) post.Post { return s.mix.Post(rank, 0) })
	if err != nil {
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

// there reports whether the stack has the posts, judged by a sample.
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

// importPosts imports posts through a writer, the post of each rank below n.
func importPosts(ctx context.Context, writer, token string, n int, post func(rank int) post.Post) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	r, w := io.Pipe()
	defer r.Close() // ends the goroutine when the writer stops reading
	go func() {
		out := bufio.NewWriterSize(w, 1<<20)
		var line []byte
		for rank := range n {
			var err error
			if line, err = workload.AppendLine(line[:0], post(rank)); err == nil {
				_, err = out.Write(line)
			}
			if err != nil {
				_ = w.CloseWithError(err)
				return
			}
		}
		_ = w.CloseWithError(out.Flush())
	}()
	written, err := lab.Import(ctx, writer, token, r)
	if err == nil && written != n {
		err = fmt.Errorf("import: %d of %d posts were written", written, n)
	}
	return err
}
