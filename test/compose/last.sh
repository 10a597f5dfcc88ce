# shellcheck shell=bash disable=SC2154,SC2317
# Sourced by run.sh after checks.sh and sentinel.sh: the last checks, after which the stack is gone.

check_clean() {
	says "make clean leaves no container, network, volume or image of the stack"
	make clean
	local label="label=com.docker.compose.project=$project"
	expect "" "$(docker ps --all --quiet --filter "$label")" containers
	expect "" "$(docker network ls --quiet --filter "$label")" networks
	expect "" "$(docker volume ls --quiet --filter "$label")" volumes
	expect "" "$(docker images --all --quiet --filter "$label")" images
	[ "$own_engine" = no ] || expect "" "$(docker images --quiet 'heavy-read-api-*')" "images by name"
}

check_fallback() {
	says "without an engine make start says so and runs the local stack; RUNTIME=docker makes it an error"
	export DOCKER_HOST=unix:///nowhere
	! RUNTIME=docker make start >"$work/forced" 2>&1 || return
	grep "RUNTIME=docker, but docker's daemon does not answer" "$work/forced"
	unset COMPOSE_FILE
	RUNTIME='' make start >"$work/fallback" 2>&1
	cat "$work/fallback"
	grep "Runtime: local (docker's daemon does not answer" "$work/fallback"
	export RUNTIME=''
	make health
	put check local
	make stop
	make clean
}

check_fallback_images() {
	says "without images make start says so and runs the local stack"
	[ "$own_engine" = yes ] || { note "not run: the images of this machine are left alone"; return; }
	docker image rm redis:8.2.3-alpine
	! RUNTIME=docker make start >"$work/forced" 2>&1 || return
	grep "RUNTIME=docker, but the images cannot be had" "$work/forced"
	RUNTIME='' make start | tee -a /dev/stderr | grep "The images cannot be had"
	RUNTIME='' make health # it is the local stack that runs
	RUNTIME='' make clean
}
