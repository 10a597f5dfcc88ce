// Command apisix stands in for the entry point of APISIX's image in the test of the Docker stack: it runs the local
// gateway with the nodes that nodes.sh writes for APISIX. Like APISIX, it reads them once a second.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
)

const routes = "/usr/local/apisix/conf/apisix.yaml" // a link that nodes.sh makes

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
	settings := map[string]string{"PORT": "9080", "METRICS_PORT": "9091", "GATEWAY_NODES_FILE": list}
	getenv := func(name string) string {
		if value, ok := settings[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
	os.Exit(daemon.Main(nil, getenv, os.Stderr, gateway.ParseConfig, gateway.Run))
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
