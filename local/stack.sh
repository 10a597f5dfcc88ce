#!/bin/sh
# Runs a command of the Makefile on the stack, in Docker or without: stack.sh start|stop|...
set -eu
cd "$(dirname "$0")/.."

choice=$(sh local/runtime.sh)
runtime=${choice%% *}
command=$1
shift

if [ "$command" = start ]; then
	echo "Runtime: $runtime (${choice#* }; RUNTIME=local or docker forces it)"
fi

if [ "$runtime" = docker ]; then
	case "$command" in
	start) exec docker compose up --detach --wait "$@" ;;
	stop) exec docker compose down ;;
	health) exec docker compose ps --all ;;
	logs) exec docker compose logs --follow --tail 50 "$@" ;;
	scale) exec docker compose up --detach --wait --no-recreate --scale "reader=$1" ;;
	clean) exec docker compose down --volumes ;;
	*)
		echo "error: there is no $command for the stack in Docker" >&2
		exit 2
		;;
	esac
fi

case "$command" in
start | stop | stats | clean) exec bin/local "$command" ;;
health) exec bin/local status ;;
scale) exec bin/local scale "$1" ;;
logs)
	dir=${RUN_DIR:-.run}
	if [ ! -d "$dir" ]; then
		echo "There are no logs yet: make start" >&2
		exit 1
	fi
	# tail -F follows a file over its rotation; the lines carry the process's name, so the files'
	# names (-q) are not needed. Without a name it is all of them.
	exec tail -q -n 20 -F "$dir/${1:-}"*.log
	;;
*)
	echo "error: there is no $command" >&2
	exit 2
	;;
esac
