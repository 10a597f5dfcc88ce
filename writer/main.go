// Command writer accepts posts and publishes them to the readers. See package internal/writer.
package main

import (
	"os"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/writer"
)

func main() {
	os.Exit(daemon.Main(os.Args[1:], os.Getenv, os.Stderr, writer.ParseConfig, writer.Run))
}
