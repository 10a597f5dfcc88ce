#!/bin/sh
# Says how the stack is run: "docker" or "local", then why, on one line.
# RUNTIME=local or docker in the environment forces it; else what was started last decides for as
# long as it runs, then what runs at all, then what this machine has.
set -eu
. local/compose.sh

dir=${RUN_DIR:-.run}

runs_local() {
	pid=$(cat "$dir/stack.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

runs_docker() {
	[ -z "$missing" ] && [ -n "$(compose ps --quiet 2>/dev/null)" ]
}

case "${RUNTIME:-}" in
local)
	echo "local RUNTIME=local"
	exit 0
	;;
docker)
	missing=$(no_docker)
	if [ -n "$missing" ]; then
		echo "error: RUNTIME=docker, but $missing; RUNTIME=local works without Docker" >&2
		exit 2
	fi
	echo "docker RUNTIME=docker"
	exit 0
	;;
'') ;;
*)
	echo "error: RUNTIME=$RUNTIME: use local or docker" >&2
	exit 2
	;;
esac

missing=$(no_docker)
last=$(cat "$dir/runtime" 2>/dev/null || true)
if [ "$last" = docker ] && runs_docker; then
	echo "docker it runs in Docker"
elif runs_local; then
	echo "local it runs without Docker"
elif runs_docker; then
	echo "docker it runs in Docker"
elif [ -n "$missing" ]; then
	echo "local $missing"
else
	echo "docker Compose is there"
fi
