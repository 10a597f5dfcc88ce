package fastlane

import (
	"container/list"
	"net/http"
	"sync"
	"unsafe"
)

// defaultMaxPinned is the default for Config.MaxPinned, in bytes.
const defaultMaxPinned = 64 << 20

// slowTicks is the duration after which the write of an answer counts as slow, in ticks.
const slowTicks = 4 // 1 s

// pins bounds the memory that slow clients pin. A large body is written without a copy, so it stays in memory
// until its client has received it, even if the post has been replaced in the meantime.
type pins struct {
	most int64 // maximum of bytes

	mu    sync.Mutex    // guards the rest
	held  *list.List    // list of *pin, oldest first
	refs  map[*byte]int // number of writes of each body, by its first byte
	bytes int64         // total size of the bodies in refs; a body with several writes counts once
}

// pin is an answer that is being written.
type pin struct {
	bodies []segment
	since  uint32        // tick at which the write began
	cut    func()        // aborts the write; does not block
	at     *list.Element // element in pins.held; nil once the pin has been released
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

// forget removes h. The caller holds mu.
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

// trim cuts slow writes, the oldest first, while more than most bytes are pinned.
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

// Hold counts body, which a net/http handler is about to write, as pinned memory. If slow clients pin too much
// memory, the write may be aborted. The caller must call release after the write.
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
