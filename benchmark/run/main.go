// Command run measures the stack that runs and writes the report. benchmark/run_benchmark.sh starts
// it in the repository's folder.
package main

import (
	"os"

	"heavy-read-api/benchmark/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)) }
