#!/bin/sh
# Runs a command of the Makefile on the stack, in Docker or without: stack.sh start|stop|...
set -eu
cd "$(dirname "$0")/.."
. local/env.sh

command=$1
shift

# find_url GIVEN SERVICE ITS-PORT PORT sets url: what was given, which may be behind a proxy, or where the stack
# on this machine answers, which never is. In Docker BIND_ADDRESS may have moved it.
find_url() {
	url=$1
	[ -z "$url" ] || return 0
	export no_proxy='*'
	choice=$(sh local/runtime.sh)
	address=127.0.0.1:$4
	if [ "${choice%% *}" = docker ]; then
		address=$(. local/compose.sh && published "$2" "$3")
	fi
	url=http://${address:?the stack is not running: make start}
}

# test_write writes a post with the id, and test_read reads it.
test_write() {
	id=${1:-hello}
	find_url "${WRITER_URL:-}" writer 8080 "${WRITER_PORT:-8080}"
	curl -sS -i --fail-with-body -X POST "$url/create" -H 'Content-Type: application/json' \
		${WRITER_TOKEN:+-H "Authorization: Bearer $WRITER_TOKEN"} \
		-d "{\"id\":\"$(printf %s "$id" | sed 's/[\\"]/\\&/g')\",\"title\":\"A post\",\"content\":\"Written by make test-write at $(date)\",\"author\":\"make\"}"
	printf "Read it: make test-read POST_ID='%s'\n" "$(printf %s "$id" | sed "s/'/'\\\\''/g")"
}

test_read() {
	find_url "${GATEWAY_URL:-}" apisix 9080 "${GATEWAY_PORT:-9080}"
	curl -sS -i --fail-with-body -G "$url/post" --data-urlencode "id=$1"
}

case "$command" in
test-write) test_write "$@"; exit ;;
test-read) test_read "$@"; exit ;;
esac

choice=$(sh local/runtime.sh)
runtime=${choice%% *}
dir=${RUN_DIR:-.run}

case $runtime:${REDIS:-single} in
docker:single | docker:sentinel | local:*) ;;
*)
	echo "error: REDIS=$REDIS: use single or sentinel in Docker" >&2
	exit 2
	;;
esac

if [ "$command" = start ]; then
	echo "Runtime: $runtime (${choice#* }; RUNTIME=local or docker forces it)"
	if [ "$runtime" = docker ] && ! sh local/docker.sh images; then
		if [ "${RUNTIME:-}" = docker ]; then
			echo "error: RUNTIME=docker, but the images cannot be had, for the reason above; RUNTIME=local works without Docker" >&2
			exit 1
		fi
		echo "Starting the local stack instead; RUNTIME=docker makes this an error."
		runtime=local
	fi
	(umask 077 && mkdir -p "$dir")
	echo "$runtime" >"$dir/runtime"
fi

if [ "$runtime" = docker ]; then
	exec sh local/docker.sh "$command" "$@"
fi

# The program is built at each start: go build knows best what changed. The other commands take the
# one that is there, so that a stack can be looked at and stopped while the tree does not compile.
if [ "$command" = start ] || [ "$command" = build ] || [ ! -x bin/local ]; then
	command -v "${GO:-go}" >/dev/null || {
		echo "error: without Docker the stack needs Go 1.26 or newer on PATH (https://go.dev/dl)" >&2
		exit 1
	}
	[ -x bin/local ] || echo "Compiling; the first time takes a minute or two."
	"${MAKE:-make}" --no-print-directory bin/local
fi
export RUNTIME=local
case "$command" in
start | stop | health | stats | failover | clean) exec bin/local "$command" ;;
build) exec "${MAKE:-make}" --no-print-directory bin/writer bin/reader ;;
scale) exec bin/local scale "$1" ;;
logs)
	case ${1:-} in
	redis) set -- "$dir"/redis*.log "$dir"/sentinel*.log ;;
	*) set -- "$dir/${1:-}"*.log ;;
	esac
	for log; do
		shift
		[ ! -e "$log" ] || set -- "$@" "$log"
	done
	if [ $# -eq 0 ]; then
		echo "There are no logs yet: make start" >&2
		exit 1
	fi
	# tail -F follows a file over its rotation; the lines carry the process's name, so the files'
	# names (-q) are not needed. Without a name it is all of them.
	exec tail -q -n 20 -F "$@"
	;;
*)
	echo "error: there is no $command" >&2
	exit 2
	;;
esac
