package writer

import (
	"fmt"
	"strings"
	"testing"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// withhold sends a request without the last byte of its body.
func (w *instance) withhold(t testing.TB, request string, size int) socket {
	t.Helper()
	s := w.dial(t)
	s.begin(t, request, size)
	s.write(t, strings.Repeat(" ", size-1))
	return s
}

// TestBudget fills the budget with large bodies whose last bytes are withheld. Other large requests are refused at once,
// small ones are written, and large ones succeed again when the first bodies have ended.
func TestBudget(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	var held []socket
	for range maxLarge / post.MaxBody {
		held = append(held, w.withhold(t, "POST /create", post.MaxBody))
	}
	// A client that sends the whole body before it reads still receives the answer.
	large := strings.Repeat("x", post.MaxBody)
	refused := func(request string, length int, body string) {
		t.Helper()
		s := w.dial(t)
		s.begin(t, request, length)
		s.write(t, body)
		res := s.answer(t)
		p := wantProblem(t, res, 503, "")
		if res.header.Get("Retry-After") != "1" || !strings.Contains(p.Detail, "nothing was written") {
			t.Errorf("%s: %v, %s", request, res.header, res.body)
		}
	}
	eventually.Nil(t, func() error {
		res := w.do(t, "POST", "/create", large)
		if res.status != 503 {
			return fmt.Errorf("%d %s", res.status, res.body)
		}
		return nil
	})
	refused("POST /create", len(large), large)
	refused("PUT /post?id=a", len(large), large)
	refused("POST /create", len(large), "") // answered before the body is sent
	refused("POST /import", len(large), large)
	refused("POST /import", -1, chunk(large)+chunk(""))
	refused("POST /create", -1, chunk(large)+chunk(""))
	wantSuccess(t, db, w.do(t, "POST", "/create", line("small", "t")), 201, "small")
	s := w.dial(t)
	s.begin(t, "POST /create", -1)
	s.write(t, chunk(line("chunked", "t"))+chunk(""))
	wantSuccess(t, db, s.answer(t), 201, "chunked")
	wantProblem(t, w.do(t, "POST", "/create", large+"x"), 413, "")

	for i, s := range held {
		if i%2 == 0 {
			_ = s.Close()
			continue
		}
		s.write(t, " ")
		wantProblem(t, s.answer(t), 400, "")
	}
	eventually.Nil(t, func() error {
		if res := w.do(t, "POST", "/create", largest("largest")); res.status/100 != 2 {
			return fmt.Errorf("%d %s", res.status, res.body)
		}
		return nil
	})
	r := decodeResult(t, w.do(t, "POST", "/import", line("a", "t")))
	r.want(t, summary{Status: "done", Lines: 1, Written: 1, Created: 1})
}

// TestClaims fills the budget with claims of different sizes and releases them all.
func TestClaims(t *testing.T) {
	b := &budget{}
	claimed := func(size int64) *claim {
		c := &claim{budget: b}
		if !c.resize(size) {
			return nil
		}
		return c
	}
	var all []*claim
	for _, size := range []int64{post.MaxBody, 1 << 20, smallBody + 1, smallBody, 1} {
		for c := claimed(size); c != nil; c = claimed(size) {
			all = append(all, c)
		}
		if size > smallBody && b.all > maxLarge {
			t.Errorf("bodies of %d bytes leave no room for small ones", size)
		}
	}
	if b.all != maxInFlight || b.large > maxLarge || b.large < maxLarge-smallBody-1 {
		t.Errorf("%d bytes are claimed, %d of them large; want %d and about %d", b.all, b.large, maxInFlight, maxLarge)
	}
	small := all[len(all)-1]
	if small.resize(small.size + 1) {
		t.Error("a claim exceeded the budget")
	}
	for _, c := range all {
		if !c.resize(min(c.size, smallBody)) || !c.resize(c.size) || !c.resize(0) {
			t.Errorf("a claim could not be released")
		}
	}
	if b.all != 0 || b.large != 0 {
		t.Errorf("%d bytes are still claimed, %d of them large", b.all, b.large)
	}
}
