package workload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"heavy-read-api/internal/post"
)

// Mix makes posts whose contents have the sizes of real texts.
type Mix struct {
	Source string // description of the contents, for a report
	texts  []string
}

// NewMix returns a mix of the fortunes where they are installed, and of generated texts of the same sizes elsewhere.
func NewMix() *Mix {
	texts, err := Fortunes()
	if err != nil {
		return generated(fortunes)
	}
	m := &Mix{Source: fmt.Sprintf("the %d texts of Debian's fortunes", len(texts))}
	for _, t := range texts {
		m.texts = append(m.texts, t.Text)
	}
	m.shuffle()
	return m
}

// shuffle mixes the sizes, because texts that are close to each other in a file of fortunes have similar sizes.
func (m *Mix) shuffle() {
	rand.New(rand.NewPCG(1, 0)).Shuffle(len(m.texts), func(i, j int) { m.texts[i], m.texts[j] = m.texts[j], m.texts[i] })
}

// fortunes are the quantiles 0 %, 2.5 %, 5 %, ... 100 % of the sizes in bytes of the texts in Debian 12's package
// fortunes. TestQuantiles compares them with the package.
var fortunes = []int{
	0, 23, 31, 37, 42, 46, 50, 53, 57, 59, 62, 65, 68, 71, 74, 78, 81, 85, 89, 93, 97,
	101, 106, 112, 117, 123, 131, 138, 148, 158, 170, 185, 203, 229, 259, 301, 362, 456, 596, 826, 2434,
}

// generated returns a mix of about as many texts as there are fortunes, whose sizes are spread evenly between the
// quantiles.
func generated(quantiles []int) *Mix {
	const (
		count = 15_000
		words = "all work and no play makes a cache a dull store; "
	)
	m := &Mix{Source: "generated texts with the sizes of Debian's fortunes (which are not installed)"}
	filler := strings.Repeat(words, quantiles[len(quantiles)-1]/len(words)+1)
	for i := range count {
		place := float64(i) / count * float64(len(quantiles)-1)
		q := int(place)
		size := float64(quantiles[q]) + (place-float64(q))*float64(quantiles[q+1]-quantiles[q])
		m.texts = append(m.texts, filler[:int(size)])
	}
	m.shuffle()
	return m
}

// MixPrefix begins the ids of all posts of a Mix and distinguishes them from other posts.
const MixPrefix = "bench-"

// MixID returns the id of the post with a rank, counted from 0.
func MixID(rank int) string { return fmt.Sprintf("%s%d", MixPrefix, rank) }

// Post returns the post of a rank in a version. Version 0 is the one that is imported.
func (m *Mix) Post(rank, version int) post.Post {
	title := fmt.Sprintf("Post %d", rank)
	if version > 0 {
		title += fmt.Sprintf(", version %d", version)
	}
	return post.Post{
		ID:      MixID(rank),
		Title:   title,
		Content: m.texts[rank%len(m.texts)],
		Author:  "benchmark",
	}
}

// AppendLine appends a post as a line with a JSON object, the form that the writer accepts.
func AppendLine(b []byte, p post.Post) ([]byte, error) {
	line, err := json.Marshal(map[string]string{"id": p.ID, "title": p.Title, "content": p.Content, "author": p.Author})
	if err != nil {
		return b, fmt.Errorf("encode post %s: %w", p.ID, err)
	}
	return append(append(b, line...), '\n'), nil
}

// Size returns the size in bytes of the post of a rank as it is served.
func (m *Mix) Size(rank int) int { return len(m.Post(rank, 0).Encode(time.Unix(1e9, 0)).Body) }

// Check returns an error when a reader must not serve body for the post of a rank in a version.
func (m *Mix) Check(rank, version int, body []byte) error { return Check(m.Post(rank, version), body) }

// Check returns an error when a reader must not serve body for p: body has to consist of the fields that were sent,
// byte for byte, a timestamp, and the hash over all of it.
func Check(p post.Post, body []byte) error {
	want := p.Encode(time.Unix(1e9, 0)).Body
	known := want[:bytes.LastIndex(want, []byte(`,"timestamp":`))]
	if !bytes.HasPrefix(body, known) {
		return fmt.Errorf("post %s: the response begins with %.200q, but %.200q was written", p.ID, body, known)
	}
	if err := post.Verify(body); err != nil {
		return fmt.Errorf("post %s: %w", p.ID, err)
	}
	return nil
}
