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
	"heavy-read-api/internal/test/eventually"
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
			complain(e.Entry.Text)
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
	sees("#processes li", "reader-2ready")
	sees("#processes .primary", "primary, 2 Redis replicas")
	sees("#banners", "make test-write") // nothing was written yet: the banner says what to do
	sees(".chart h2", "Propagation")
	sees(".legend", "reader-1")

	point := `document.querySelector('.chart canvas').dispatchEvent(new PointerEvent('pointermove', {clientX: 360, clientY: 800}))`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](point)); err != nil {
		t.Fatal(err)
	}
	sees(".tip:not([hidden])", "reader-1") // the values under the pointer

	f.setState("reader-2", state.Restarting)
	sees("#banners", "reader-2 is restarting (signal: killed).")
	f.setState("reader-2", state.Ready)

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
	// On a wide screen all rows of cards have the same length.
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 800)); err != nil {
		t.Fatal(err)
	}
	for _, cards := range []int{7, 8} {
		f.mu.Lock()
		for len(f.procs) < cards {
			f.procs = append(f.procs, f.procs[len(f.procs)-1])
		}
		f.mu.Unlock()
		want := map[int]string{7: "7", 8: "4"}[cards] // columns
		eventually.True(t, "columns for the cards", func() bool {
			got, err := chromedp.Run(ctx, chromedp.Evaluate[string](
				`getComputedStyle(document.querySelector('#processes')).gridTemplateColumns.split(' ').length + ' ' + document.querySelectorAll('#processes li').length`))
			return err == nil && got == want+fmt.Sprintf(" %d", cards)
		})
	}

	mu.Lock()
	defer mu.Unlock()
	if len(complaints) > 0 {
		t.Errorf("the browser complains: %q", complaints)
	}
}
