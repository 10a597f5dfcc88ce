// Command reader serves posts from memory. See package internal/reader.
package main

import (
	"os"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/reader"
)

func main() {
	os.Exit(daemon.Main(os.Args[1:], os.Getenv, os.Stderr, reader.ParseConfig, reader.Run))
}
