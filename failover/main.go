// Command failover moves the role of the primary to another Redis server without losing a write. It
// takes the writer's settings of Redis, with a user that has the rights of an operator. See package
// failover.
package main

import (
	"os"

	"heavy-read-api/internal/failover"
)

func main() { os.Exit(failover.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }
