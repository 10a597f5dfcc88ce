#!/usr/bin/env bash
# Health check of the gateway's container: requests /health of a reader through the gateway. It uses
# bash's /dev/tcp, because the image has neither curl nor wget.
# The timeout also covers the connect, which would hang for two minutes if the accept queue were full.
# It is shorter than Docker's own timeout of the health check.
# shellcheck disable=SC2016 # the inner shell expands these
status=$(timeout 4 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" &&
	printf "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3 &&
	read -r _ status _ <&3 && echo "$status"' "${GATEWAY_PORT:-9080}")
[ "$status" = 200 ]
