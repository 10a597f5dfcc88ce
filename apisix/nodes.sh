#!/usr/bin/env bash
# The main process of the gateway's container: runs APISIX and keeps its list of readers.
#
#	nodes.sh COMMAND...     COMMAND runs APISIX in the foreground
#
# APISIX balances, checks and retries by node, and takes a name with several addresses for one node.
# So every other second the readers' addresses are looked up in Docker's DNS and written as nodes
# into the file that APISIX reads again when its time has changed. The loop is the main process, so
# that APISIX cannot go on with a list that nobody keeps: when either ends, the container does.
set -euo pipefail

name=${READER_HOST:-reader}
port=${READER_PORT:-80}
routes=${ROUTES:-$(dirname "$0")/apisix.yaml}
file=${NODES_FILE:-/run/apisix/apisix.yaml}               # on a tmpfs
link=${APISIX_FILE:-/usr/local/apisix/conf/apisix.yaml}   # where APISIX looks for it
# APISIX compares the file's time in whole seconds: two versions within one would look like one.
interval=2

nodes=()  # addresses that are listed
missing=0 # 1 while DNS has no address

log() { printf '%s nodes.sh: %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }

# look_up prints the readers' IPv4 addresses in a stable order, none when DNS does not answer.
look_up() {
	local address _
	timeout 2 getent ahostsv4 "$name" | while read -r address _; do
		[[ $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]] && echo "$address"
	done | sort -u
}

# is_ready ADDRESS: the reader there says that it has loaded its posts.
is_ready() {
	# shellcheck disable=SC2016 # the inner shell expands these
	timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "GET /ready HTTP/1.0\r\n\r\n" >&3 &&
		read -r _ status _ <&3 && [ "$status" = 200 ]' "$1" "$port" 2>/dev/null
}

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

# update follows DNS. When it has no answer the last list stays: the readers are likely to be well.
update() {
	local found address list=()
	found=$(look_up) || true
	if [ -z "$found" ]; then
		((missing)) || log "DNS has no address for $name; still listed: ${nodes[*]:-none}"
		missing=1
		return
	fi
	missing=0
	for address in $found; do
		# APISIX takes a node that it does not know for well. A reader that is new is listed once it
		# has loaded its posts; from then on APISIX checks it.
		if [[ " ${nodes[*]} " == *" $address "* ]] || is_ready "$address"; then
			list+=("$address")
		fi
	done
	if [ ${#list[@]} -eq 0 ]; then
		mapfile -t list <<<"$found" # none is ready, and any is better than none
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

stopping=0
trap 'stopping=1 interval=0.2' TERM INT QUIT
# However this script ends, APISIX ends too.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

ln -sfn "$file" "$link"
publish
update
# With job control, because bash would start what runs beside it with QUIT ignored.
set -m
"$@" &
gateway=$!
set +m

while kill -0 "$gateway" 2>/dev/null; do
	if ((stopping)); then
		# nginx finishes the requests in flight on QUIT, and cuts them on TERM. Again and again, because
		# the image's entrypoint, which runs first, is deaf to QUIT.
		kill -QUIT "$gateway" 2>/dev/null || true
	else
		update
	fi
	sleep "$interval" &
	wait -n "$gateway" $! || true # until either ends, or a signal comes
done

status=0
wait "$gateway" || status=$?
((stopping)) || log "APISIX ended by itself with status $status: the container ends with it"
exit "$status"
