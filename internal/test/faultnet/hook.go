package faultnet

import (
	"bytes"
	"slices"
)

// Action is the effect of a Hook on the connection on which it fires.
type Action int

const (
	// SwallowReply forwards the matching bytes and discards everything in the opposite direction from then
	// on: the server executes the request, and the client gets no reply.
	SwallowReply Action = iota
	// CutAtReply forwards the matching bytes and closes the connection at the next bytes of the opposite
	// direction, which it discards. They prove that the server has executed the request.
	CutAtReply
	// Swallow discards the matching bytes and everything after them, in both directions.
	Swallow
	// CutNow discards the matching bytes and closes the connection.
	CutNow
)

// Hook fires once, on the first bytes that match.
type Hook struct {
	direction Direction
	text      []byte // in lower case
	action    Action
	fired     chan struct{}
}

// OnceContains arms a hook: action happens to the first connection that sends bytes
// containing text, in upper or lower case, in direction d. The bytes of one read, at
// most 16 KiB, are searched: a request on an idle connection begins at its beginning,
// but a larger one, or several without waiting for replies, are split anywhere.
func (p *Proxy) OnceContains(d Direction, text string, action Action) *Hook {
	h := &Hook{direction: d, text: bytes.ToLower([]byte(text)), action: action, fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = append(p.hooks, h)
	return h
}

// Fired is closed when the hook has fired. With CutAtReply the cut itself
// comes later.
func (h *Hook) Fired() <-chan struct{} { return h.fired }

// inspect calls the hooks before the bytes are forwarded, so that a hook for the reply is in effect before
// the reply can arrive. It reports whether the connection must be closed now.
func (p *Proxy) inspect(c *conn, d Direction, b []byte) (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.cutAt[d] {
		return true
	}
	for i, h := range p.hooks {
		if h.direction != d || !bytes.Contains(bytes.ToLower(b), h.text) {
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
