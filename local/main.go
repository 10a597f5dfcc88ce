//go:build !windows

// Command local is the program behind make. It is also each process of the stack without Docker: it starts
// itself again in the role of the writer, a reader, the auditor or the gateway.
package main

import (
	"os"

	"heavy-read-api/internal/auditor"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/load"
	"heavy-read-api/internal/local"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/writer"
)

func main() {
	os.Exit(local.Main(os.Args[1:], os.Stdout, os.Stderr, map[string]local.Role{
		"writer": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, writer.ParseConfig, writer.Run)
		},
		"reader": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, reader.ParseConfig, reader.Run)
		},
		"auditor": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, auditor.ParseConfig, auditor.Run)
		},
		"gateway": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, gateway.ParseConfig, gateway.Run)
		},
		"load-generator": func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, load.ParseConfig, load.Run)
		},
	}))
}
