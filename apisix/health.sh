#!/usr/bin/env bash
# Health check of the gateway's container: one read through a route to a reader. The image has no
# curl or wget, but bash speaks TCP.
exec 3<>"/dev/tcp/127.0.0.1/${GATEWAY_PORT:-9080}" || exit 1
printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -rt 4 _ status _ <&3
[ "$status" = 200 ]
