// Command local is the program behind make. It does not work on Windows.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "error: the local stack needs Unix signals and process groups, which Windows does not have: "+
		"use Linux, macOS or the Windows Subsystem for Linux (WSL); writer, reader and failover run on Windows")
	os.Exit(78)
}
