#!/usr/bin/env bash
# Health check of the gateway's container: one read through a route to a reader. The image has no
# curl or wget, but bash speaks TCP.
# The bound includes the connect, which would take two minutes to give up on a full accept queue, and
# is below the health check's own.
# shellcheck disable=SC2016 # the inner shell expands these
status=$(timeout 4 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" &&
	printf "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3 &&
	read -r _ status _ <&3 && echo "$status"' "${GATEWAY_PORT:-9080}")
[ "$status" = 200 ]
