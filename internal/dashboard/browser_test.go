package dashboard

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"heavy-read-api/internal/stack/state"
)

const browserWait = 60 * time.Second

// TestInBrowser opens the page as a visitor does: the console stays empty (it would report a script or style that the
// policy refuses), the state is shown, and a post is seen to arrive.
func TestInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium not on PATH")
	}
	f := newFakeStack(t)
	f.procs[0].Note = "primary, 2 Redis replicas" // a Redis server has such a note; for the page any process will do
	d, srv := f.dashboard(t)
	ctx, cancel := context.WithTimeout(t.Context(), browserWait)
	defer cancel()
	var collecting sync.WaitGroup
	defer collecting.Wait()
	collectCtx, stop := context.WithCancel(ctx)
	defer stop()
	collecting.Go(func() { d.Run(collectCtx) })

	var mu sync.Mutex
	var complaints []string
	complain := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		complaints = append(complaints, text)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, closeAllocator := chromedp.NewExecAllocator(ctx, options...)
	defer closeAllocator()
	ctx, closeBrowser := chromedp.NewContext(ctx, chromedp.WithListener(func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			complain(e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if !strings.Contains(e.Entry.Text, "409 (Conflict)") { // the browser reports every request that is refused
				complain(e.Entry.Text)
			}
		}
	}))
	defer closeBrowser()

	if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 844), chromedp.Navigate(srv.URL)); err != nil {
		t.Fatal(err)
	}
	sees := func(selector, want string) {
		t.Helper()
		var got string
		for {
			now, err := chromedp.Run(ctx, chromedp.Evaluate[string](
				`[...document.querySelectorAll(`+"`"+selector+"`"+`)].map((e) => e.textContent).join(' | ')`))
			if err == nil {
				got = now
			}
			if strings.Contains(got, want) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s says %q, want %q (%v)", selector, got, want, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	sees("#link", "live")
	sees(".node", "reader-2ready")
	sees("#picture .primary", "primary, 2 Redis replicas")
	sees("#banners", "make load") // nothing was written yet: the banner says what to do
	if folded, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`!document.querySelector('.chart canvas').checkVisibility()`)); err != nil || !folded {
		t.Errorf("a phone shows the charts at once (%v)", err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`[...document.querySelectorAll('details')].every((d) => (d.open = true))`)); err != nil {
		t.Fatal(err)
	}
	sees(".chart h2", "Propagation")
	sees(".legend", "reader-1")

	point := `document.querySelector('.chart canvas').dispatchEvent(new PointerEvent('pointermove', {clientX: 360, clientY: 800}))`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](point)); err != nil {
		t.Fatal(err)
	}
	sees(".tip:not([hidden])", "reader-1") // the values under the pointer

	f.setState("reader-2", state.Restarting)
	sees("#banners", "reader-2 is restarting (signal: killed).")
	sees("#events .going", "reader-2 died (signal: killed)")
	f.setState("reader-2", state.Ready)
	sees("#events .unproven", "reader-2 died (signal: killed); back after ") // nothing reads through a gateway

	// The buttons of the control API, and what it refuses.
	err = chromedp.Do(ctx, chromedp.Click(`#buttons button`))
	if err != nil {
		t.Fatal(err)
	}
	sees("#refusal:not([hidden])", "the fake stack takes no load")
	sees("#figures .big", "Failed reads0")
	sees("#figures", "Digests of the readersidentical")
	sees("#picture code", "00c0ffee")
	f.mu.Lock()
	f.digest["reader-2"] = "00c0ffef00c0ffef"
	f.mu.Unlock()
	sees("#banners", "The readers hold different posts.")
	f.mu.Lock()
	clear(f.digest)
	f.mu.Unlock()

	// One cause makes one banner: readers that are degraded because Redis is down are no problem of their own.
	f.mu.Lock()
	f.procs[0].Role = state.Redis
	f.mu.Unlock()
	f.setState("writer", state.NotReady)
	f.setState("reader-1", state.Degraded)
	sees("#banners", "writer is not ready")
	if text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector('#banners').textContent`)); err != nil || strings.Contains(text, "reader-1") {
		t.Errorf("the banners say %q (%v)", text, err)
	}
	f.setState("reader-1", state.Ready)
	f.setState("writer", state.Ready)
	f.mu.Lock()
	f.procs[0].Role = state.Writer
	f.mu.Unlock()
	sees("#picture .writers", "writer")

	evil := `<img src=x onerror="document.title='broken'">`
	err = chromedp.Do(ctx,
		chromedp.SetValue(`input[name="id"]`, evil),
		chromedp.SetValue(`input[name="title"]`, "refuse me"),
		chromedp.Click(`#write button`))
	if err != nil {
		t.Fatal(err)
	}
	sees("#outcome", "The writer answered 400: the title has too much to say")
	err = chromedp.Do(ctx, chromedp.SetValue(`input[name="title"]`, evil), chromedp.Click(`#write button`))
	if err != nil {
		t.Fatal(err)
	}
	sees("#outcome", "The writer answered 201")
	sees("#arrivals", "reader-1")
	sees("#arrivals", "reader-2")
	sees("#arrivals", "written")
	sees("#arrivals .scale", "ms since sent0")

	const asked = `document.querySelector('#token').checkVisibility()`
	if shown, err := chromedp.Run(ctx, chromedp.Evaluate[bool](asked)); err != nil || shown {
		t.Errorf("the token is asked for before it is needed (%v)", err)
	}
	f.token = "secret"
	if err := chromedp.Do(ctx, chromedp.Click(`#write button`)); err != nil {
		t.Fatal(err)
	}
	sees("#outcome", "The writer answered 401: the token is missing")
	sees("#token:not([hidden])", "The writer's token")
	if shown, err := chromedp.Run(ctx, chromedp.Evaluate[bool](asked)); err != nil || !shown {
		t.Errorf("the token is not asked for (%v)", err)
	}
	if err := chromedp.Do(ctx, chromedp.SetValue(`#token input`, "secret"), chromedp.Click(`#write button`)); err != nil {
		t.Fatal(err)
	}
	sees("#outcome", "The writer answered 201")

	wide, err := chromedp.Run(ctx, chromedp.Evaluate[float64]("document.documentElement.scrollWidth"))
	if err != nil || wide > 390 {
		t.Errorf("the page is %v wide on a screen of 390 (%v)", wide, err)
	}
	nameless, err := chromedp.Run(ctx, chromedp.Evaluate[int](
		`[...document.querySelectorAll('input, textarea')].filter((e) => e.labels.length !== 1).length
		+ [...document.querySelectorAll('canvas')].filter((e) => !e.getAttribute('aria-label')).length`))
	if err != nil || nameless != 0 {
		t.Errorf("%d fields or charts have no name (%v)", nameless, err)
	}
	// On a wide screen, and with ten readers: they are in order, their colours differ, and they share a place in legends.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	for n := 10; n > 2; n-- {
		another := f.procs[2]
		another.Name = fmt.Sprintf("reader-%d", n)
		f.state[another.Name] = state.Ready
		f.procs = append(f.procs, another)
	}
	f.mu.Unlock()
	sees("#picture .readers", "reader-10")
	order, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[...document.querySelectorAll('.readers .name')].map((e) => e.textContent).join(' ')`))
	if want := "reader-1 reader-2 reader-3 reader-4 reader-5 reader-6 reader-7 reader-8 reader-9 reader-10"; err != nil || order != want {
		t.Errorf("the readers are %q (%v)", order, err)
	}
	colors, err := chromedp.Run(ctx, chromedp.Evaluate[int](`new Set(Array.from({ length: 20 }, (_, i) => colorOf('reader-' + (i + 1)))).size`))
	if err != nil || colors != 20 {
		t.Errorf("20 readers have %d colours (%v)", colors, err)
	}
	sees(".legend li", "10 readers")

	// One import does not flatten everything else: the axis ends near what is usual.
	const usual = `(() => {
		const line = { group: 'a', label: 'a', color: 'red', get: (p) => p.y };
		const chart = new Chart(document.createElement('div'), { clip: true, format: format.number, lines: () => [line] });
		chart.data = { points: Array.from({ length: 100 }, (_, i) => ({ t: i, y: i === 50 ? 5000 : 10 })), lines: [line], now: 100, events: [] };
		return chart.usual();
	})()`
	if got, err := chromedp.Run(ctx, chromedp.Evaluate[float64](usual)); err != nil || got != 10 {
		t.Errorf("the usual value beside a peak is %v (%v)", got, err)
	}

	// Without the control API there are commands for a terminal instead of the buttons.
	shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[true, false].map((controls) => {
		drawControls(controls);
		return ['buttons', 'commands'].filter((id) => document.getElementById(id).checkVisibility()).join();
	}).join(' ') + ' ' + document.querySelectorAll('#commands li').length`))
	if err != nil || shown != "buttons commands 5" {
		t.Errorf("with and without controls the page shows %q (%v)", shown, err)
	}
	happened, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`drawEvents([{ time: 0, text: 'redis is not ready: dial tcp 10.0.0.2:6379: connect: connection refused' }]), document.querySelector('#events span:last-child').textContent`))
	if want := "redis is not ready: connection refused …"; err != nil || happened != want {
		t.Errorf("an event is %q (%v)", happened, err)
	}

	// A banner stays the same from second to second, and names no address.
	const reason = `brief('read the log: dial tcp 127.0.0.1:38219: connect: connection reset by peer, reads may be stale: updates of the last 2.5 s may be missing')`
	brief, err := chromedp.Run(ctx, chromedp.Evaluate[string](reason))
	if want := "read the log: connection reset by peer, reads may be stale: updates may be missing"; err != nil || brief != want {
		t.Errorf("the reason in a banner is %q (%v)", brief, err)
	}

	mu.Lock()
	defer mu.Unlock()
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
}
