#!/usr/bin/env bash
# Measures the stack that `make start` has started and writes a report to benchmark/results. It can be
# called from any folder; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."

need() { # need COMMAND HOW-TO-INSTALL-IT
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
