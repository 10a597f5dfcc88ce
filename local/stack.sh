#!/bin/sh
# Runs bin/local, the program behind make: stack.sh start|stop|health|...
#
# start, build and demo compile what has changed. Every other command uses the program that is there, so that a stack
# can be examined and stopped while the tree does not compile. Where there is no Go, Docker compiles.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}

fail() {
	echo "error: $*" >&2
	exit 1
}

# compile_in_docker builds bin/local for this machine with the builder of the images.
compile_in_docker() {
	if docker compose version >/dev/null 2>&1; then compose='docker compose'; else compose=docker-compose; fi
	GOOS=$(uname -s | tr '[:upper:]' '[:lower:]')
	case $(uname -m) in
	arm64 | aarch64) GOARCH=arm64 ;;
	x86_64 | amd64) GOARCH=amd64 ;;
	*) fail "there is no Go on PATH, and Docker cannot compile for $(uname -m): install Go 1.26 or newer (https://go.dev/dl)" ;;
	esac
	export GOOS GOARCH
	$compose --file local/build.yaml build --quiet || fail "Docker cannot compile, for the reason above: install Go 1.26 or newer (https://go.dev/dl)"
	container=$(docker create heavy-read-api-local)
	mkdir -p bin
	said=$(docker cp "$container:/local" bin/local.new 2>&1) || fail "$said"
	docker rm "$container" >/dev/null
	mv bin/local.new bin/local # in one step: a running stack may have it open
}

case ${1:-} in
start | build | demo) compile=yes ;;
*) if [ -x bin/local ]; then compile=no; else compile=yes; fi ;;
esac
if [ $compile = yes ]; then
	[ -x bin/local ] || echo "Compiling; the first time takes a minute or two." >&2
	if "$go" list -m >/dev/null 2>&1; then # Go is installed and new enough
		"$go" build -o bin/local ./local
	elif why=$(docker version 2>&1 >/dev/null); then
		compile_in_docker
	elif command -v "$go" >/dev/null; then
		"$go" build -o bin/local ./local # fails with the reason
	else
		command -v docker >/dev/null || why='docker is not installed'
		fail "the stack needs Docker ($(echo "$why" | tail -n 1)), or Go 1.26 or newer on PATH (https://go.dev/dl)"
	fi
fi
exec bin/local "$@"
