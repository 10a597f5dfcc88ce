#!/bin/sh
# Starts a Redis server or a Sentinel (start.sh) with addresses in place of Pod names in three variables.
#
# Redis replicas and Sentinels store each other's address, and a Pod gets another one with each start. So every Pod has
# a Service of its own name, whose address stays. Kubernetes sets it in variables such as REDIS_0_SERVICE_HOST.
set -eu
for variable in REDIS_ADDRESS REDIS_FIRST_PRIMARY SENTINEL_ADDRESS; do
	eval "pod=\${$variable:-}"
	[ -n "$pod" ] || continue
	host=$(printf %s "$pod" | tr a-z- A-Z_)_SERVICE_HOST
	eval "address=\${$host:-}"
	if [ -z "$address" ]; then
		echo "error: $host is not set, because there was no Service $pod when this container started" >&2
		exit 1 # the kubelet restarts the container, with new variables
	fi
	export "$variable=$address"
done
exec sh "${START:-/etc/redis/start.sh}" "$@"
