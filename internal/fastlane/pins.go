package fastlane

import (
	"container/list"
	"net/http"
	"sync"
	"unsafe"
)

// defaultMaxPinned is how many bytes of bodies may be kept alive by answers to slow clients.
const defaultMaxPinned = 64 << 20

// slowTicks is how long the write of an answer may take before it counts as slow.
const slowTicks = 4 // a second

// pins bounds the memory that slow clients hold. A large body is written without a copy, so it stays
// in memory until its client has taken it, although the post may have been replaced since.
type pins struct {
	most int64

	mu    sync.Mutex // guards the rest
	held  *list.List // of *pin, the oldest first
	refs  map[*byte]int
	bytes int64 // of the bodies in refs: one that many clients are taking counts once
}

// pin is an answer that is being written.
type pin struct {
	bodies []segment
	since  uint32        // tick at which the write began
	cut    func()        // ends the write; does not block
	at     *list.Element // in pins.held; nil once the pin has been released
}

func newPins(most int64) pins {
	return pins{most: most, held: list.New(), refs: make(map[*byte]int)}
}

func (p *pins) hold(h *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range h.bodies {
		first := unsafe.SliceData(s.body)
		if p.refs[first]++; p.refs[first] == 1 {
			p.bytes += int64(len(s.body))
		}
	}
	h.at = p.held.PushBack(h)
}

func (p *pins) release(h *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(h)
}

// forget takes h out of the account. The caller holds mu.
func (p *pins) forget(h *pin) {
	if h.at == nil {
		return
	}
	p.held.Remove(h.at)
	h.at = nil
	for _, s := range h.bodies {
		first := unsafe.SliceData(s.body)
		if p.refs[first]--; p.refs[first] == 0 {
			delete(p.refs, first)
			p.bytes -= int64(len(s.body))
		}
	}
}

// trim cuts the slowest writes while all of them hold more than most.
func (p *pins) trim(now uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.bytes > p.most {
		oldest := p.held.Front().Value.(*pin)
		if now-oldest.since < slowTicks {
			return
		}
		p.forget(oldest)
		oldest.cut()
	}
}

// Hold accounts for a body that a handler of the other lane is about to write. When slow clients hold
// too much, the write fails. Call release after the write.
func (s *Server) Hold(w http.ResponseWriter, body string) (release func()) {
	if len(body) < largeBody {
		return func() {}
	}
	h := &pin{
		bodies: []segment{{body: unsafe.Slice(unsafe.StringData(body), len(body))}},
		since:  s.tick.Load(),
		cut:    func() { _ = http.NewResponseController(w).SetWriteDeadline(expired) },
	}
	s.pins.hold(h)
	return func() { s.pins.release(h) }
}
