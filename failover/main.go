// Command failover promotes another Redis server to primary without losing a write. It takes the same Redis
// settings as the writer, with an operator's credentials. See package internal/failover.
package main

import (
	"os"

	"heavy-read-api/internal/failover"
)

func main() { os.Exit(failover.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }
