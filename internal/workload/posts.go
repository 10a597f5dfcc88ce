package workload

import (
	"fmt"
	"strings"

	"heavy-read-api/internal/post"
)

// ID returns the id of the post with a rank, counted from 0.
func ID(rank int) string { return fmt.Sprintf("post-%d", rank) }

// Post returns the post of a rank in a version. Encoded, a post whose rank has six digits takes 259 bytes.
func Post(rank, version int) post.Post {
	return post.Post{
		ID:      ID(rank),
		Title:   fmt.Sprintf("Post %d", rank),
		Content: fmt.Sprintf("%0100d", version) + strings.Repeat(".", 15),
		Author:  "benchmark",
	}
}
