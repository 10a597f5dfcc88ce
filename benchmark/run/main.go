// Command run measures the running stack and writes a report. benchmark/run_benchmark.sh starts it in the
// root folder of the repository.
package main

import (
	"fmt"
	"os"

	"heavy-read-api/benchmark/internal/cli"
	"heavy-read-api/internal/dotenv"
)

func main() {
	if err := dotenv.Load(".env"); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
	os.Exit(cli.Main(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}
