#!/bin/sh
# Says how the stack is run: "docker" or "local", then why, on one line.
# RUNTIME=local or docker in the environment forces it; else what was started last decides for as
# long as it runs, else what this machine has.
set -eu

case "${RUNTIME:-}" in
local | docker)
	echo "$RUNTIME RUNTIME=$RUNTIME"
	exit 0
	;;
'') ;;
*)
	echo "error: RUNTIME=$RUNTIME: use local or docker" >&2
	exit 2
	;;
esac

pid=$(cat "${RUN_DIR:-.run}/stack.pid" 2>/dev/null || true)
if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
	echo "local it runs without Docker already"
elif [ ! -f docker-compose.yaml ]; then
	echo "local no docker-compose.yaml"
elif ! command -v docker >/dev/null 2>&1; then
	echo "local no docker on PATH"
elif ! docker info >/dev/null 2>&1; then
	echo "local docker does not answer"
elif ! docker compose version >/dev/null 2>&1; then
	echo "local docker has no compose"
else
	echo "docker docker-compose.yaml is there and docker compose works"
fi
