#!/usr/bin/env bash
# The main process of the gateway's container: runs APISIX and keeps its list of readers.
#
#	nodes.sh COMMAND...     COMMAND runs APISIX in the foreground
#
# APISIX balances, checks and retries by node, and takes a name with several addresses for one node.
# So every other second the readers' addresses are looked up in Docker's DNS and written as nodes
# into the file that APISIX reads again when its time has changed. A child does that, and the main
# process only waits for its children and for signals: a stop reaches APISIX at once, however long
# DNS and the readers take. When APISIX or the child ends, the container does, so that APISIX cannot
# go on with a stale list.
set -euo pipefail

name=${READER_HOST:-reader}
port=${READER_PORT:-80}
routes=${ROUTES:-$(dirname "$0")/apisix.yaml}
file=${NODES_FILE:-/run/apisix/apisix.yaml}               # on a tmpfs
link=${APISIX_FILE:-/usr/local/apisix/conf/apisix.yaml}   # where APISIX looks for it
# APISIX compares the file's time in whole seconds: two versions within one would look like one.
interval=${NODES_INTERVAL:-2}

max_absent=5 # DNS answers in a row without a listed reader that remove it even if it is ready

nodes=()             # addresses that are listed
declare -A absent=() # DNS answers in a row without a listed address
missing=0            # 1 while DNS has no address

log() { printf '%s nodes.sh: %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }

# look_up prints the readers' IPv4 addresses in a stable order, none when DNS does not answer.
look_up() {
	local address _
	timeout 2 getent ahostsv4 "$name" | while read -r address _; do
		[[ $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] && echo "$address"
	done | sort -u
}

# ready ADDRESS... prints the addresses whose reader says that it has loaded its posts. All are asked
# in parallel within one second, so many silent readers delay a round no more than one does.
ready() {
	[ $# -gt 0 ] || return 0
	# shellcheck disable=SC2016 # the inner shell expands these
	timeout 1 bash -c '
		for address in "${@:2}"; do
			{ exec 3<>"/dev/tcp/$address/$1" && printf "GET /ready HTTP/1.0\r\n\r\n" >&3 &&
				read -r _ status _ <&3 && [ "$status" = 200 ] && echo "$address"; } &
		done
		wait' bash "$port" "$@" 2>/dev/null || true # 124: some reader was silent
}

# among ADDRESS LIST... reports whether the address is in the list.
among() { [[ " ${*:2} " == *" $1 "* ]]; }

# render ADDRESS... prints the routes with these nodes.
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

# publish ADDRESS... makes these the nodes. The file is replaced in one step, so that APISIX sees
# the old list or the new one and never half of it.
publish() {
	render "$@" >"$file.new" && mv "$file.new" "$file" || return
	nodes=("$@")
}

# update follows DNS, with three exceptions:
# - Without an answer the list stays: the readers are likely to be well.
# - A new reader is listed once its /ready says 200, because APISIX takes a node that it does not know
#   for a healthy one. From then on APISIX checks it.
# - A listed reader that the answer leaves out stays while its /ready says 200, because an answer can
#   be incomplete. A reader that stops says 503, and then nothing, so it leaves with the first answer
#   without it. After max_absent answers in a row (10 s) it leaves anyway: by then DNS is right, and
#   the address may belong to another container.
update() {
	local found all stay=() unsure=() list=() address
	mapfile -t found < <(look_up)
	if [ ${#found[@]} -eq 0 ]; then
		((missing)) || log "DNS has no address for $name; still listed: ${nodes[*]:-none}"
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
		list=("${found[@]}") # none is ready, and any is better than none
	fi
	if [ "${list[*]}" = "${nodes[*]}" ]; then
		return
	fi
	if publish "${list[@]}"; then
		log "readers: ${nodes[*]}"
	else
		log "cannot write $file; still listed: ${nodes[*]:-none}"
	fi
}

# keep runs update for ever.
keep() {
	while sleep "$interval"; do update; done
}

stopping=0
gateway=
# quit stops APISIX: nginx finishes the requests in flight on QUIT, and cuts them on TERM.
quit() {
	stopping=1
	[ -n "$gateway" ] || exit 0 # APISIX does not run yet
	kill -QUIT "$gateway" 2>/dev/null || true
}
trap quit TERM INT QUIT
# However this script ends, its children end too.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

ln -sfn "$file" "$link"
publish
update

keep &
keeper=$!
# With job control, because bash would start what runs beside it with QUIT ignored.
set -m
"$@" &
gateway=$!
set +m

status=0
pause=$interval
while kill -0 "$gateway" 2>/dev/null; do
	if ((!stopping)) && ! kill -0 "$keeper" 2>/dev/null; then
		log "the process that keeps the list of readers died: stopping APISIX and the container"
		stopping=1 status=1
	fi
	if ((stopping)); then
		quit # repeated, because the image's entrypoint, which runs first, ignores QUIT
		pause=0.2
	fi
	sleep "$pause" &
	wait -n "$gateway" $! || true # until either ends, or a signal comes
done

wait "$gateway" || status=$?
((stopping)) || log "APISIX ended by itself with status $status: the container ends with it"
exit "$status"
