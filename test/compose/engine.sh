# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by run.sh: an engine of our own, where none answers, and Docker Compose.

# engine starts dockerd unless one answers, and says in $own_engine which of the two it was.
engine() {
	own_engine=no
	if docker info >/dev/null 2>&1; then
		echo "   the engine that answers: $(docker version --format '{{.Server.Version}}')"
		return
	fi
	own_engine=yes
	export DOCKER_HOST=unix://$work/docker.sock
	# Machines differ in what their kernel has: nftables or iptables, overlayfs or none.
	mkdir -p "$work/legacy"
	local tool
	for tool in iptables iptables-save iptables-restore ip6tables; do
		ln -sf "/usr/sbin/${tool/tables/tables-legacy}" "$work/legacy/$tool"
	done
	try_engine "$PATH" || try_engine "$work/legacy:$PATH" ||
		try_engine "$PATH" --storage-driver vfs || try_engine "$work/legacy:$PATH" --storage-driver vfs || {
		tail -n 20 "$work/dockerd.log" >&2
		echo "error: dockerd does not start; does this run as root?" >&2
		return 1
	}
}

# try_engine PATH OPTION...
try_engine() {
	# What dockerd changes in the machine's network and does not change back; see stop_engine.
	engine_path=$1
	had_bridge=no
	[ ! -e /sys/class/net/docker0 ] || had_bridge=yes
	PATH=$1 iptables-save >"$work/iptables"
	# A table that nobody used yet is not listed.
	grep -q '^\*filter' "$work/iptables" || printf '*filter\n:FORWARD ACCEPT\nCOMMIT\n' >>"$work/iptables"
	grep -q '^\*nat' "$work/iptables" || printf '*nat\nCOMMIT\n' >>"$work/iptables"
	# In a session of its own: a signal to our process group must not end it before the tear-down.
	PATH=$1 setsid dockerd --host "$DOCKER_HOST" --data-root "$work/docker" --exec-root "$work/exec" \
		--pidfile "$work/docker.pid" "${@:2}" >"$work/dockerd.log" 2>&1 &
	engine_pid=$!
	local deadline=$((SECONDS + 30))
	while kill -0 "$engine_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
		if docker info >/dev/null 2>&1; then
			echo "   dockerd $(docker version --format '{{.Server.Version}}'), storage $(docker info --format '{{.Driver}}'), $(PATH=$1 iptables --version) ${*:2}"
			return
		fi
		sleep 0.2
	done
	stop_engine
	return 1
}

stop_engine() {
	kill "$engine_pid" 2>/dev/null || true
	local deadline=$((SECONDS + 20))
	while kill -0 "$engine_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
		sleep 0.2
	done
	kill -KILL "$engine_pid" 2>/dev/null || true
	wait "$engine_pid" 2>/dev/null || true
	PATH=$engine_path iptables-restore <"$work/iptables" || true
	[ "$had_bridge" = yes ] || ip link delete docker0 2>/dev/null || true
}

# dead_proxy sets an unreachable proxy in the environment and, with an engine of our own, in Docker's configuration,
# which passes it to every container. The stack must not use it for requests to its own services.
dead_proxy() {
	export http_proxy=http://127.0.0.1:1 no_proxy='' NO_PROXY=''
	[ "$own_engine" = yes ] || return 0
	local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
	export DOCKER_CONFIG=$work/proxied
	mkdir "$DOCKER_CONFIG"
	[ ! -d "$plugins" ] || ln -s "$plugins" "$DOCKER_CONFIG/cli-plugins"
	echo "{\"proxies\": {\"default\": {\"httpProxy\": \"$http_proxy\"}}}" >"$DOCKER_CONFIG/config.json"
}

# compose_plugin builds Docker Compose from its Go module where docker has none.
compose_plugin() {
	if docker compose version >/dev/null 2>&1; then
		docker compose version
		return
	fi
	echo "Compiling Docker Compose; the first time takes about five minutes."
	export DOCKER_CONFIG=$work/config
	mkdir -p "$work/compose" "$DOCKER_CONFIG/cli-plugins"
	(
		cd "$work/compose"
		go mod init throwaway
		go get github.com/docker/compose/v2/cmd@v2.40.3
		CGO_ENABLED=0 go build -ldflags='-s -w -X github.com/docker/compose/v2/internal.Version=v2.40.3' \
			-o "$DOCKER_CONFIG/cli-plugins/docker-compose" github.com/docker/compose/v2/cmd
	) >"$work/compose.log" 2>&1 || {
		tail -n 20 "$work/compose.log" >&2
		return 1
	}
	docker compose version
}
