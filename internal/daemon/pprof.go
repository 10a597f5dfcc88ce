package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// serveProfiles serves the Go profiles on PProfAddr until stop is called. Without PProfAddr it serves
// nothing. They have an address of their own so that no public port ever exposes them.
func (c *Common) serveProfiles() (stop func(), err error) {
	if c.PProfAddr == "" {
		return func() {}, nil
	}
	ln, err := net.Listen("tcp", c.PProfAddr)
	if err != nil {
		return nil, fmt.Errorf("serve the Go profiles on PPROF_ADDR=%s: %w", c.PProfAddr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index) // and the named profiles below it, such as heap
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	// No WriteTimeout: /debug/pprof/profile?seconds=N answers after N seconds.
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	c.Logger.Info("serving the Go profiles", "url", "http://"+ln.Addr().String()+"/debug/pprof/")
	go server.Serve(ln)
	return func() { server.Close() }, nil
}
