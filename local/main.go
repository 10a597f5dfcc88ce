// Command local runs the whole stack on one machine without Docker, and is each of its processes:
// it starts itself again in the role of the writer, a reader or the gateway.
package main

import (
	"os"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/stack"
	"heavy-read-api/internal/writer"
)

func main() {
	os.Exit(stack.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr, map[string]stack.Role{
		"writer": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, writer.ParseConfig, writer.Run)
		},
		"reader": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, reader.ParseConfig, reader.Run)
		},
		"gateway": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, gateway.ParseConfig, gateway.Run)
		},
	}))
}
