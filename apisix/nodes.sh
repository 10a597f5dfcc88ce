#!/usr/bin/env bash
# The main process of the gateway's container: runs APISIX and updates its list of readers.
#
#	nodes.sh COMMAND...     COMMAND runs APISIX in the foreground
#
# APISIX balances, health-checks and retries per node, and treats a host name with several addresses
# as one node. So every two seconds this script looks up the readers' addresses in Docker's DNS and
# writes them as nodes into the file that APISIX reloads when its modification time changes. A child
# process does that; the main process only waits for its children and for signals, so that a stop
# reaches APISIX at once, even while DNS or readers are slow. If APISIX or the child exits, the
# container does too, so that APISIX never runs with a list that is not updated any more.
set -euo pipefail

name=${READER_HOST:-reader}
port=${READER_PORT:-80}
routes=${ROUTES:-$(dirname "$0")/apisix.yaml}
file=${NODES_FILE:-/run/apisix/apisix.yaml}               # on a tmpfs
link=${APISIX_FILE:-/usr/local/apisix/conf/apisix.yaml}   # path from which APISIX reads it
# More than a second, because APISIX compares modification times in whole seconds.
interval=${NODES_INTERVAL:-2}

max_absent=5 # consecutive DNS answers without a listed reader after which it is removed even if ready

nodes=()             # listed addresses
declare -A absent=() # per listed address, the number of consecutive DNS answers without it
missing=0            # 1 while DNS returns no address

log() { printf '%s nodes.sh: %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }

# look_up prints the readers' IPv4 addresses, sorted. It prints nothing if DNS does not answer.
look_up() {
	local address _
	timeout 2 getent ahostsv4 "$name" | while read -r address _; do
		[[ $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] && echo "$address"
	done | sort -u
}

# ready ADDRESS... prints the addresses whose reader answers /ready with 200. It probes all of them in
# parallel and takes at most one second, no matter how many readers do not answer.
ready() {
	[ $# -gt 0 ] || return 0
	# shellcheck disable=SC2016 # the inner shell expands these
	timeout 1 bash -c '
		for address in "${@:2}"; do
			{ exec 3<>"/dev/tcp/$address/$1" && printf "GET /ready HTTP/1.0\r\n\r\n" >&3 &&
				read -r _ status _ <&3 && [ "$status" = 200 ] && echo "$address"; } &
		done
		wait' bash "$port" "$@" 2>/dev/null || true # 124 if a reader did not answer in time
}

# among ADDRESS LIST... succeeds if the list contains the address.
among() { [[ " ${*:2} " == *" $1 "* ]]; }

# render ADDRESS... prints the routes file with these nodes.
render() {
	local line
	while IFS= read -r line; do
		if [[ $line == *'nodes: []'* && $# -gt 0 ]]; then
			echo '    nodes:'
			printf "      - {host: %s, port: $port, weight: 1}\n" "$@"
		else
			printf '%s\n' "$line"
		fi
	done <"$routes"
}

# publish ADDRESS... writes the file with these nodes. It replaces the file atomically, so that APISIX
# never reads a partial list.
publish() {
	render "$@" >"$file.new" && mv "$file.new" "$file" || return
	nodes=("$@")
}

# update makes the list equal to the DNS answer, with three exceptions:
# - If DNS does not answer, the list stays, because the readers are probably healthy.
# - A new reader is listed when its /ready returns 200, because APISIX assumes that a new node is
#   healthy. From then on APISIX checks it.
# - A listed reader that is missing in the answer stays while its /ready returns 200, because DNS
#   answers can be incomplete. A reader that is being stopped returns 503, then nothing, so it is
#   removed at the first answer without it. After max_absent consecutive answers (10 s) a reader is
#   removed anyway, because its address may belong to another container by then.
update() {
	local found all stay=() unsure=() list=() address
	mapfile -t found < <(look_up)
	if [ ${#found[@]} -eq 0 ]; then
		((missing)) || log "DNS has no address for $name; reads still go to: ${nodes[*]:-none}"
		missing=1
		return
	fi
	missing=0
	mapfile -t all < <(printf '%s\n' "${found[@]}" "${nodes[@]}" | sort -u) # in a stable order
	for address in "${all[@]}"; do
		if ! among "$address" "${found[@]}"; then
			absent[$address]=$((${absent[$address]:-0} + 1))
			((absent[$address] >= max_absent)) || unsure+=("$address")
			continue
		fi
		unset "absent[$address]"
		if among "$address" "${nodes[@]}"; then stay+=("$address"); else unsure+=("$address"); fi
	done
	mapfile -t -O ${#stay[@]} stay < <(ready "${unsure[@]}")
	for address in "${all[@]}"; do
		if among "$address" "${stay[@]}"; then list+=("$address"); fi
	done
	if [ ${#list[@]} -eq 0 ]; then
		list=("${found[@]}") # none is ready, so list all
	fi
	if [ "${list[*]}" = "${nodes[*]}" ]; then
		return
	fi
	if publish "${list[@]}"; then
		log "reads go to the readers: ${nodes[*]}"
	else
		log "cannot write $file; reads still go to: ${nodes[*]:-none}"
	fi
}

# update_loop runs update in a loop.
update_loop() {
	while sleep "$interval"; do update; done
}

stopping=0
launched=0 # 1 from just before the start of APISIX on
gateway=
# quit stops APISIX gracefully: nginx finishes the requests in flight on QUIT, but aborts them on TERM.
quit() {
	stopping=1
	((launched)) || exit 0
	[ -z "$gateway" ] || kill -QUIT "$gateway" 2>/dev/null || true # the loop below repeats it once the process is known
}
trap quit TERM INT QUIT
# However this script exits, it kills its children.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

ln -sfn "$file" "$link"
publish
update

update_loop &
updater=$!
launched=1
# Job control, because without it bash starts background commands with QUIT ignored.
set -m
"$@" &
gateway=$!
set +m

status=0
pause=$interval
while kill -0 "$gateway" 2>/dev/null; do
	if ((!stopping)) && ! kill -0 "$updater" 2>/dev/null; then
		log "the process that updates the list of readers died; stopping APISIX and the container"
		stopping=1 status=1
	fi
	if ((stopping)); then
		quit # repeated, because the image's entrypoint, which runs first, ignores QUIT
		pause=0.2
	fi
	sleep "$pause" &
	wait -n "$gateway" $! || true # until one of them exits or a signal arrives
done

wait "$gateway" || status=$?
((stopping)) || log "APISIX exited with status $status; stopping the container"
exit "$status"
