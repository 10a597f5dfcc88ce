// Command dashboard serves the page of a stack that it did not start, such as that in Docker: without the buttons that
// break it. See package internal/dashboard/service.
package main

import (
	"os"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/dashboard/service"
)

func main() {
	os.Exit(daemon.Main(os.Args[1:], os.Getenv, os.Stderr, service.ParseConfig, service.Run))
}
