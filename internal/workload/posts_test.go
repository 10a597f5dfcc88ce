package workload

import (
	"testing"
	"time"
)

func TestPost(t *testing.T) {
	p := Post(123456, 7)
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Encode(time.Unix(1700000000, 123456789)).Body); n != 259 {
		t.Errorf("a post has %d bytes, want 259", n)
	}
	if Post(1, 1) == Post(1, 2) || Post(1, 1) == Post(2, 1) {
		t.Error("posts of different ranks or versions are equal")
	}
}
