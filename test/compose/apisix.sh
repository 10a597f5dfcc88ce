#!/bin/bash
# Stands in for the entry point of APISIX's image: runs the gateway of the local stack on the nodes
# that nodes.sh writes for APISIX, read once a second as APISIX does.
set -euo pipefail

routes=/usr/local/apisix/conf/apisix.yaml
list=$(dirname "$(readlink -f "$routes")")/list

read_nodes() {
	tail -n 1 "$routes" | grep -qx '#END' || return 0 # APISIX ignores such a file
	sed -n 's/^ *- {host: \([^,]*\), port: \([0-9]*\), weight: 1}$/\1:\2/p' "$routes" >"$list.new"
	mv "$list.new" "$list"
}

read_nodes
while sleep 1; do read_nodes; done &
loop=$!
PORT=9080 METRICS_PORT=9091 GATEWAY_NODES_FILE=$list local-gateway gateway &
gateway=$!
trap 'kill -TERM $gateway' TERM QUIT INT
status=0
wait $gateway || status=$?
wait $gateway 2>/dev/null || status=$? # the first one ends with the signal
kill $loop 2>/dev/null || true
exit "$status"
