package workload

import (
	"fmt"
	"strings"

	"heavy-read-api/internal/post"
)

// ID returns the id of the post of a rank.
func ID(rank int) string { return fmt.Sprintf("post-%d", rank) }

// Post returns the post of a rank in a version. Encoded it has 259 bytes for a rank of six digits,
// the size that this design is usually measured with.
func Post(rank, version int) post.Post {
	return post.Post{
		ID:      ID(rank),
		Title:   fmt.Sprintf("Post %d", rank),
		Content: fmt.Sprintf("%0100d", version) + strings.Repeat(".", 15),
		Author:  "benchmark",
	}
}
