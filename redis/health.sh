#!/bin/sh
# The health check of a server or Sentinel in docker-compose.sentinel.yaml. Prints what it does, which
# make health shows.
set -eu
if [ -n "${SENTINEL_ADDRESS:-}" ]; then
	# -e: an error, such as NOQUORUM, is a failure.
	redis-cli -e -p 26379 sentinel ckquorum "$SENTINEL_MASTER_NAME"
	exit
fi
redis-cli -e ping >/dev/null
# The first line is the role, then master has its offset and the Redis replicas; slave has host, port,
# state of the link and offset.
redis-cli -e role | { # ends with the status of the last command
	read -r role
	case $role in
	master)
		redis-cli info replication | sed -n 's/^connected_slaves:\([0-9]*\).*/primary of \1 Redis replicas/p'
		;;
	slave)
		read -r host
		read -r _
		read -r link
		echo "Redis replica of $host, link $link"
		[ "$link" = connected ]
		;;
	esac
}
