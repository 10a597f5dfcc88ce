// Command reader serves posts from memory. See package reader.
package main

import (
	"os"

	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/service"
)

func main() {
	os.Exit(service.Main(os.Args[1:], os.Getenv, os.Stderr, reader.ParseConfig, reader.Run))
}
