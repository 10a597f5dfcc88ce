// Command apisix stands in for the entry point of APISIX's image in the test of the Docker stack: it runs the local
// gateway with the nodes that nodes.sh writes for APISIX. Like APISIX, it reads them once a second, and updates its metrics
// only once per refresh_interval of apisix/config.yaml.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
)

const (
	routes          = "/usr/local/apisix/conf/apisix.yaml" // a link that nodes.sh makes
	metricsPath     = "/apisix/prometheus/metrics"
	ownMetrics      = "9099" // port of the gateway's own metrics, which are always new
	refreshInterval = 5 * time.Second
)

func main() {
	file, err := filepath.EvalSymlinks(routes)
	if err != nil {
		log.Fatal(err)
	}
	list := filepath.Join(filepath.Dir(file), "list")
	if err := copyNodes(file, list); err != nil {
		log.Fatal(err)
	}
	go func() {
		for range time.Tick(time.Second) {
			if err := copyNodes(file, list); err != nil {
				log.Print(err)
			}
		}
	}()
	go stopOnQuit()
	m := &metrics{}
	go m.follow("http://127.0.0.1:" + ownMetrics + metricsPath)
	go func() { log.Fatal(http.ListenAndServe(":9091", m)) }()
	settings := map[string]string{"PORT": "9080", "METRICS_PORT": ownMetrics, "GATEWAY_NODES_FILE": list}
	getenv := func(name string) string {
		if value, ok := settings[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
	os.Exit(daemon.Main(nil, getenv, os.Stderr, gateway.ParseConfig, gateway.Run))
}

// metrics serves a copy of the gateway's metrics.
type metrics struct {
	mu   sync.Mutex // guards text
	text []byte
}

// follow copies the metrics at url once per refreshInterval.
func (m *metrics) follow(url string) {
	for {
		text, err := get(url)
		if err != nil { // the gateway is starting
			time.Sleep(100 * time.Millisecond)
			continue
		}
		m.mu.Lock()
		m.text = text
		m.mu.Unlock()
		time.Sleep(refreshInterval)
	}
}

func get(url string) ([]byte, error) {
	res, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// ServeHTTP answers with the copy.
func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != metricsPath {
		http.NotFound(w, r)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(m.text)
}

// stopOnQuit stops the gateway on SIGQUIT, with which nodes.sh ends APISIX.
func stopOnQuit() {
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	<-quit
	signal.Stop(quit) // nodes.sh repeats it; a second SIGTERM would cut requests in flight
	signal.Ignore(syscall.SIGQUIT)
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		log.Fatal(err)
	}
}

// copyNodes writes the nodes of an apisix.yaml to a nodes file of the gateway.
func copyNodes(routes, list string) error {
	content, err := os.ReadFile(routes)
	if err != nil {
		return err
	}
	nodes, err := parseNodes(content)
	if err != nil {
		return nil // APISIX ignores such a file and keeps its nodes
	}
	if err := os.WriteFile(list+".new", nodes, 0o644); err != nil {
		return err
	}
	return os.Rename(list+".new", list)
}

var nodeLine = regexp.MustCompile(`(?m)^ *- \{host: ([^,]*), port: (\d+), weight: 1\}$`)

// parseNodes returns the nodes of an apisix.yaml, one host:port a line. A file without the end mark is an error.
func parseNodes(content []byte) ([]byte, error) {
	if !bytes.HasSuffix(content, []byte("\n#END\n")) {
		return nil, errors.New("the last line is not #END")
	}
	var nodes bytes.Buffer
	for _, match := range nodeLine.FindAllSubmatch(content, -1) {
		fmt.Fprintf(&nodes, "%s:%s\n", match[1], match[2])
	}
	return nodes.Bytes(), nil
}
