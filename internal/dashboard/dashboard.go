// Package dashboard is the web page of the stack: it shows measurements of every process once a second and what has
// happened to them, writes a post, and shows when the post arrives in each reader.
package dashboard

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/state"
)

// Config configures a dashboard.
type Config struct {
	// Processes checks every process of the stack. It is bounded and safe for concurrent use.
	Processes func(context.Context) []state.Process
	Log       *events.Log // receives what happens to the processes
	// Controls shows the buttons of the control API: load, faults, readers. Its handler is not part of the dashboard.
	Controls bool
	// Prometheus is the base URL of a Prometheus whose alerts the page shows, and PrometheusLink its URL for the browser.
	// If it is empty, a process with the role of Prometheus is used.
	Prometheus, PrometheusLink string
	// ByClients takes the totals of reads from the load generator, and so leaves out the reads of others. By default the
	// gateway counts the reads.
	ByClients bool
}

// Dashboard serves the page and its data.
type Dashboard struct {
	cfg     Config
	history *history
	mux     *http.ServeMux
	writing chan struct{} // holds a token for each /api/write that runs
	polls   ownPolls
}

// New returns a dashboard that has measured nothing yet: see Run.
func New(cfg Config) *Dashboard {
	d := &Dashboard{cfg: cfg, mux: http.NewServeMux(), writing: make(chan struct{}, maxWriting)}
	d.history = newHistory(cfg, &d.polls)
	d.mux.HandleFunc("GET /{$}", servePage)
	d.mux.HandleFunc("GET /api/series", d.handleSeries)
	d.mux.HandleFunc("GET /api/events", d.handleEvents)
	d.mux.HandleFunc("POST /api/write", d.handleWrite)
	return d
}

// Run observes and measures the processes until ctx is done.
func (d *Dashboard) Run(ctx context.Context) { d.history.run(ctx) }

// ServeHTTP serves the page and its data. Wrap it in LocalOnly.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// handleSeries answers with the points after a time (after=, Unix milliseconds) or the last few
// (last=).
func (d *Dashboard) handleSeries(w http.ResponseWriter, r *http.Request) {
	after, errAfter := number(r, "after", 0)
	last, errLast := number(r, "last", historyLength)
	if errAfter != nil || errLast != nil {
		httpkit.Problem{Status: http.StatusBadRequest, Detail: "after is a time in Unix milliseconds, last a number of points"}.WriteTo(w)
		return
	}
	httpkit.JSON(w, http.StatusOK, d.history.since(after, int(last)))
}

// handleEvents answers with what has happened, and the reads so far.
func (d *Dashboard) handleEvents(w http.ResponseWriter, _ *http.Request) {
	httpkit.JSON(w, http.StatusOK, map[string]any{"events": d.cfg.Log.Events(), "totals": d.cfg.Log.Totals()})
}

func number(r *http.Request, name string, missing int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return missing, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

//go:embed page/index.html
var pageHTML string

//go:embed page/style.css
var pageCSS string

//go:embed page/chart.js
var chartJS string

//go:embed page/picture.js
var pictureJS string

//go:embed page/story.js
var storyJS string

//go:embed page/arrival.js
var arrivalJS string

//go:embed page/app.js
var appJS string

// page is one self-contained document, and policy forbids a browser to run or load anything that is not in it.
var page, policy = assemble()

func assemble() (page, policy string) {
	script := strings.Join([]string{chartJS, pictureJS, storyJS, arrivalJS, appJS}, "\n")
	page = strings.NewReplacer("/*STYLE*/", pageCSS, "/*SCRIPT*/", script).Replace(pageHTML)
	policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; style-src '" + hash(pageCSS) + "'; script-src '" + hash(script) + "'"
	return page, policy
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write([]byte(page)) // fails when the browser has disconnected
}
