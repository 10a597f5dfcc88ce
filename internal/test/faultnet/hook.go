package faultnet

import (
	"bytes"
	"slices"
)

// Action is what a Hook does to the connection that it fires on.
type Action int

const (
	// SwallowReply lets the bytes that matched pass and swallows everything in
	// the other direction from then on: the server does the work, and the
	// client never hears of it.
	SwallowReply Action = iota
	// CutAtReply lets the bytes that matched pass and closes the connection
	// when the next bytes come in the other direction, which are lost. They
	// prove that the server has done the work.
	CutAtReply
	// Swallow loses the bytes that matched and everything after them, in both
	// directions.
	Swallow
	// CutNow closes the connection; the bytes that matched are lost.
	CutNow
)

// Hook waits for bytes that match, and fires once.
type Hook struct {
	direction Direction
	match     func([]byte) bool
	action    Action
	fired     chan struct{}
}

// Once arms a hook: action happens to the first connection on which match says
// yes to bytes of direction d. match sees what one read returned, at most
// 16 KiB: a request on an idle connection begins at its beginning, but a larger
// one, or several without waiting for replies, are split anywhere. match is
// called with the proxy locked and must not call it.
func (p *Proxy) Once(d Direction, match func(b []byte) bool, action Action) *Hook {
	h := &Hook{direction: d, match: match, action: action, fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = append(p.hooks, h)
	return h
}

// OnceContains is Once for bytes that hold text, in upper or lower case, for
// example "evalsha".
func (p *Proxy) OnceContains(d Direction, text string, action Action) *Hook {
	lower := bytes.ToLower([]byte(text))
	return p.Once(d, func(b []byte) bool { return bytes.Contains(bytes.ToLower(b), lower) }, action)
}

// Fired is closed when the hook has fired. With CutAtReply the cut itself
// comes later.
func (h *Hook) Fired() <-chan struct{} { return h.fired }

// Remove disarms the hook if it has not fired.
func (p *Proxy) Remove(h *Hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = slices.DeleteFunc(p.hooks, func(other *Hook) bool { return other == h })
}

// inspect shows bytes to the hooks, before any of them is passed on: a reply
// cannot come before the hook that is to catch it has fired. It reports whether
// the connection is to be closed now.
func (p *Proxy) inspect(c *conn, d Direction, b []byte) (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.cutAt[d] {
		return true
	}
	for i, h := range p.hooks {
		if h.direction != d || !h.match(b) {
			continue
		}
		p.hooks = slices.Delete(p.hooks, i, i+1)
		close(h.fired)
		switch h.action {
		case SwallowReply:
			c.dead[d.opposite()] = true
		case CutAtReply:
			c.cutAt[d.opposite()] = true
		case Swallow:
			c.dead[d], c.dead[d.opposite()] = true, true
		case CutNow:
			return true
		}
		p.wake()
		return false
	}
	return false
}
