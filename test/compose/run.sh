#!/usr/bin/env bash
# Runs the stack in Docker, breaks it, and checks what it promises. Where an engine answers, it uses
# that and the images of the registry. Where none does, it starts one, which needs root, and uses
# images that it makes itself under the pinned names (images.sh). Needs Go, make, curl, jq, wrk and,
# for an engine of its own, Debian's docker.io, iptables, busybox-static, redis-server, prometheus and
# prometheus-redis-exporter. Ends with 0 when every check held.
#
#	test/compose/run.sh [CHECK...]    after the start some checks alone, by the names of their functions
set -euo pipefail
cd "$(dirname "$0")/../.."

# All of it has a bound; what it started is ended all the same.
if [ -z "${COMPOSE_TEST_BOUND:-}" ]; then
	COMPOSE_TEST_BOUND=yes exec timeout --signal TERM --kill-after 90 1800 "$0" "$@"
fi

here=test/compose
# shellcheck source=test/compose/engine.sh
. "$here/engine.sh"
# shellcheck source=test/compose/images.sh
. "$here/images.sh"
# shellcheck source=test/compose/checks.sh
. "$here/checks.sh"
# shellcheck source=test/compose/sentinel.sh
. "$here/sentinel.sh"
# shellcheck source=test/compose/last.sh
. "$here/last.sh"

# A name of its own, so that the stack of whoever runs this, and its data, are left alone.
export COMPOSE_PROJECT_NAME=heavy-read-api-test RUNTIME=docker
work=$(mktemp -d)
export RUN_DIR=$work/run
engine_pid=''

part() { printf '\n== %s (%d s so far)\n' "$*" "$SECONDS"; }

tear_down() {
	local status=$? kind
	trap - EXIT INT TERM
	part "tear down"
	pkill_children
	if docker compose version >/dev/null 2>&1; then
		docker compose --progress quiet down --volumes --remove-orphans --timeout 5 || true
		# Those of docker-compose.sentinel.yaml, which this shell does not know. The bridge of a network that
		# is left takes its addresses from the next engine's.
		for kind in network volume; do
			docker "$kind" ls --quiet --filter "label=com.docker.compose.project=$project" | xargs -r docker "$kind" rm >/dev/null || true
		done
	fi
	[ -z "$engine_pid" ] || stop_engine
	rm -rf "$work"
	exit "$status"
}

# pkill_children ends what this script left in the background, by pid.
pkill_children() {
	local pid
	for pid in $(jobs -p); do
		[ "$pid" = "$engine_pid" ] || kill "$pid" 2>/dev/null || true
	done
}
trap tear_down EXIT
trap 'exit 143' INT TERM

part "engine and Compose"
engine
compose_plugin

if [ "$own_engine" = yes ]; then
	part "stand-ins for the images"
	stand_ins
	export COMPOSE_FILE=docker-compose.yaml:$here/stand-ins.yaml
fi

part "checks"
dead_proxy
echo "Compiling what reads and writes; the first time takes a minute or two."
go build -o "$work/reads" ./test/compose/reads
go build -o "$work/writes" ./test/compose/writes
passed=0 failed=0
if [ $# -eq 0 ]; then
	mapfile -t checks < <(grep -ohP '^check_\w+(?=\(\))' "$here/checks.sh" "$here/sentinel.sh" "$here/last.sh")
	set -- "${checks[@]}"
elif [[ "$*" = *check_sentinel_* ]]; then
	set -- check_start check_sentinel_start "$@"
else
	set -- check_start "$@"
fi
for name; do
	run_check "$name"
done

part "done"
[ ! -f "$work/ran" ] || sed 's/^ */stood in: /' "$work/ran"
echo "$passed checks held, $failed did not"
[ "$failed" -eq 0 ]
