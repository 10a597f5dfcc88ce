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

// importTimeout is the limit of an import.
const importTimeout = 10 * time.Minute

// ensurePosts imports the posts unless they exist already, and waits until all readers have them. It calls before,
// which may be nil, before an import. It returns the duration of the import, or 0 when there was none.
func (s *suite) ensurePosts(ctx context.Context, before func(context.Context) error) (time.Duration, error) {
	exist, err := s.postsExist(ctx)
	if err != nil || exist {
		return 0, err
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return 0, err
		}
	}
	s.progress.Step(fmt.Sprintf("importing %d posts", s.posts), time.Duration(s.posts)*25*time.Microsecond)
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
	if exist, err = s.postsExist(ctx); err == nil && !exist {
		err = load.Wrong("%d posts were imported, but not all of them are served", s.posts)
	}
	return took, err
}

// postsExist checks a sample and reports whether the stack has the posts.
func (s *suite) postsExist(ctx context.Context) (bool, error) {
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

// importPosts imports the posts of all ranks below n through a writer.
func importPosts(ctx context.Context, writer, token string, n int, post func(rank int) post.Post) error {
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
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
