#!/usr/bin/env bash
# Measures the running stack (see `make start`) and writes a report to benchmark/results. Works from any
# folder; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # need COMMAND INSTALL-HINT
	command -v "$1" >/dev/null || {
		echo "error: $1 is missing: $2" >&2
		exit 1
	}
}
need go "see https://go.dev/doc/install"
need wrk "apt-get install wrk, or brew install wrk"

go build -o bin/benchmark ./benchmark/run
if [ -t 0 ] && [ -t 1 ]; then
	set -- --interactive "$@"
fi
exec bin/benchmark "$@"
