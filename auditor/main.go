// Command auditor compares the readers with each other and with Redis. See package internal/auditor.
package main

import (
	"os"

	"heavy-read-api/internal/auditor"
	"heavy-read-api/internal/daemon"
)

func main() {
	os.Exit(daemon.Main(os.Args[1:], os.Getenv, os.Stderr, auditor.ParseConfig, auditor.Run))
}
