// Package service serves the dashboard of a stack that another program runs, such as Docker Compose. It knows the
// processes by their addresses, has no rights over them, and so has no buttons that break them.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/loglimit"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
)

const (
	lookupTimeout = 500 * time.Millisecond // bound of one query of the DNS
	// keepAddresses is the time for which the last addresses of a name count while the DNS fails. A container that is
	// started meanwhile is missing, and one that has stopped is shown as down.
	keepAddresses = time.Minute
)

// Config configures the service.
type Config struct {
	daemon.Common
	Readers        []string      // host:port; each address of a host name is a reader
	Writer         string        // host:port
	WriterMetrics  string        // host:port of the writer's /ready and /metrics
	GatewayMetrics string        // URL of the gateway's metrics
	GatewayRefresh time.Duration // time between two updates of these metrics, 0 if every scrape has the newest values
	Auditor        string        // host:port of the auditor, "" for none
	Prometheus     string        // URL of Prometheus for this service, "" for none
	PrometheusLink string        // URL of Prometheus for the browser
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("dashboard", getenv)
	c.Register(s, 3000)
	s.List(&c.Readers, "READERS", nil, "readers, host:port, comma-separated; each address of a host name is a reader")
	s.String(&c.Writer, "WRITER", "", "host:port of the writer")
	s.String(&c.WriterMetrics, "WRITER_METRICS", "", "host:port of the writer's /ready and /metrics; empty: that of WRITER")
	s.String(&c.GatewayMetrics, "GATEWAY_METRICS", "", "URL of the gateway's metrics")
	s.Duration(&c.GatewayRefresh, "GATEWAY_METRICS_REFRESH", 0, "time between two updates of the gateway's metrics, if a scrape does not compute them")
	s.String(&c.Auditor, "AUDITOR", "", "host:port of the auditor; empty for none")
	s.String(&c.Prometheus, "PROMETHEUS_URL", "", "URL of Prometheus, whose alerts are shown; empty for none")
	s.String(&c.PrometheusLink, "PROMETHEUS_LINK", "", "URL of Prometheus for the browser")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	return c, c.validate()
}

func (c *Config) validate() error {
	if c.WriterMetrics == "" {
		c.WriterMetrics = c.Writer
	}
	for _, addr := range append([]string{c.Writer, c.WriterMetrics}, c.Readers...) {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return fmt.Errorf("%q is not the address of a process: set READERS and WRITER to host:port", addr)
		}
	}
	if len(c.Readers) == 0 {
		return errors.New("there are no readers: set READERS")
	}
	return c.Common.Validate()
}

// Run serves the dashboard until ctx is done.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	ln, err := cfg.Common.Listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	page := dashboard.New(dashboard.Config{
		Processes: newProcesses(cfg).state, Log: events.NewLog(),
		Prometheus: cfg.Prometheus, PrometheusLink: cfg.PrometheusLink,
	})
	mux := http.NewServeMux()
	mux.Handle("/", dashboard.LocalOnly(page))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { // for the health check of the container
		httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	var observing sync.WaitGroup
	defer observing.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	observing.Go(func() { page.Run(ctx) })
	cfg.Logger.Info("dashboard started", "addr", ln.Addr().String())
	return httpkit.Serve(ctx, ln, httpkit.NewServer(mux, cfg.Logger), 0, nil)
}

// processes finds the processes and checks them.
type processes struct {
	cfg    Config
	lookUp func(ctx context.Context, host string) ([]string, error) // net.Resolver.LookupHost
	now    func() time.Time
	failed loglimit.Limit

	mu    sync.Mutex           // guards all fields below
	names map[string]string    // of readers, by address
	found map[string]addresses // of readers, by host name, as the DNS last returned them
}

// addresses are the addresses of a host name at a time.
type addresses struct {
	ips []string
	at  time.Time
}

func newProcesses(cfg Config) *processes {
	return &processes{
		cfg: cfg, lookUp: net.DefaultResolver.LookupHost, now: time.Now,
		names: make(map[string]string), found: make(map[string]addresses),
	}
}

// state returns the processes. A reader whose address is gone is absent.
func (p *processes) state(ctx context.Context) []state.Process {
	writer := state.Process{
		Name: "writer", Role: state.Writer, Address: p.cfg.Writer, Metrics: "http://" + p.cfg.WriterMetrics + "/metrics",
	}
	readers := p.readers(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { writer.SetHealth(health.HTTP("http://" + p.cfg.WriterMetrics + "/ready")(ctx)) })
	for i := range readers {
		checks.Go(func() {
			r := &readers[i]
			note := r.Note
			r.SetHealth(health.HTTP("http://" + r.Address + "/ready")(ctx))
			r.Note = cmp.Or(note, r.Note)
		})
	}
	gateway := state.Process{Name: "gateway", Role: state.Gateway, Metrics: p.cfg.GatewayMetrics, Refresh: p.cfg.GatewayRefresh}
	if p.cfg.GatewayMetrics != "" {
		checks.Go(func() { gateway.SetHealth(health.HTTP(p.cfg.GatewayMetrics)(ctx)) })
	}
	auditor := state.Process{Name: "auditor", Role: state.Auditor, Address: p.cfg.Auditor, Metrics: "http://" + p.cfg.Auditor + "/metrics"}
	if p.cfg.Auditor != "" {
		checks.Go(func() { auditor.SetHealth(health.HTTP("http://" + p.cfg.Auditor + "/ready")(ctx)) })
	}
	checks.Wait()
	all := []state.Process{redis(writer), writer}
	all = append(all, readers...)
	if p.cfg.Auditor != "" {
		all = append(all, auditor)
	}
	if p.cfg.GatewayMetrics != "" {
		all = append(all, gateway)
	}
	return all
}

// redis returns Redis as the writer reports it: the service has no access to Redis itself.
func redis(writer state.Process) state.Process {
	p := state.Process{Name: "redis", Role: state.Redis, External: true, State: writer.State, Note: "as the writer reports it"}
	if !writer.Up() {
		p.State, p.Note, p.Detail = state.Degraded, "", "not known, because the writer is not ready"
		if strings.Contains(strings.ToLower(writer.Detail), "redis") {
			p.State, p.Note, p.Detail = state.NotReady, "as the writer reports it", writer.Detail
		}
	}
	return p
}

// readers returns a process for each address of the readers' host names.
func (p *processes) readers(ctx context.Context) []state.Process {
	var mu sync.Mutex // guards all
	var all []state.Process
	var lookups sync.WaitGroup
	for _, addr := range p.cfg.Readers {
		lookups.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			host, port, _ := net.SplitHostPort(addr)
			ips, note := p.addresses(ctx, host)
			for _, ip := range ips {
				if strings.Contains(ip, ":") && len(ips) > 1 {
					continue // the second address of the same reader
				}
				at := net.JoinHostPort(ip, port)
				one := state.Process{Name: p.name(ctx, ip, at), Role: state.Reader, Address: at, Note: note, Metrics: "http://" + at + "/metrics"}
				mu.Lock()
				all = append(all, one)
				mu.Unlock()
			}
		})
	}
	lookups.Wait()
	p.forget(all)
	slices.SortFunc(all, func(a, b state.Process) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// addresses returns the addresses of a host name, and a note if they are not from the DNS. A name without containers has
// none. While the DNS fails, they are those of the last answer, for keepAddresses; then the name stands for itself, so that
// the page shows a reader that cannot be reached instead of none.
func (p *processes) addresses(ctx context.Context, host string) (ips []string, note string) {
	ips, err := p.lookUp(ctx, host)
	p.mu.Lock()
	defer p.mu.Unlock()
	var dns *net.DNSError
	if err == nil || errors.As(err, &dns) && dns.IsNotFound {
		p.found[host] = addresses{ips, p.now()}
		return ips, ""
	}
	last := p.found[host]
	age := p.now().Sub(last.at)
	p.failed.Log(p.cfg.Logger.Warn, p.now(), "the DNS does not answer, so readers that were started or stopped since are shown wrongly", "name", host, "last", last.ips, "err", err)
	if age >= keepAddresses {
		return []string{host}, "the DNS does not answer"
	}
	return last.ips, fmt.Sprintf("the DNS does not answer; its address is from %v ago", age.Round(time.Second))
}

// forget drops the names of addresses that no reader has at the moment: the next one may be another reader.
func (p *processes) forget(all []state.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.names, func(at, _ string) bool {
		return !slices.ContainsFunc(all, func(r state.Process) bool { return r.Address == at })
	})
}

// name returns the name of the reader at an address: that of its container, which Docker's DNS knows, without the name
// of the project, else the address.
func (p *processes) name(ctx context.Context, ip, at string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name, known := p.names[at]; known {
		return name
	}
	found, err := net.DefaultResolver.LookupAddr(ctx, ip)
	if err != nil || len(found) == 0 {
		return at
	}
	name := readerName(found[0])
	if name == "" {
		name = at
	}
	p.names[at] = name
	return name
}

// readerName returns the name of a reader in that of its container, "" if there is none: reader-2 in
// heavy-read-api-reader-2.heavy-read-api_default.
func readerName(container string) string {
	host, _, _ := strings.Cut(container, ".")
	i := strings.LastIndex(host, "reader-")
	if i < 0 {
		return ""
	}
	name := host[i:]
	if strings.HasPrefix(name, "reader-direct") {
		return "reader-direct"
	}
	return name
}
