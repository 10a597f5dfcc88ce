#!/bin/sh
# The health check of a Redis server or Sentinel in Docker. Prints what it does, which make health shows.
# It loads the readers' script, which their user may not load (users.acl), after each start of a server: the
# writer does so too, but not on Redis replicas.
set -eu
lua=${REDIS_LUA:-/etc/redis-lua}
if [ -n "${SENTINEL_ADDRESS:-}" ]; then
	# -e: an error, such as NOQUORUM, is a failure.
	redis-cli -e -p 26379 sentinel ckquorum "$SENTINEL_MASTER_NAME"
	exit
fi
redis-cli -e ping >/dev/null
digest=$(cat "$lua/read.lua" "$lua/step.lua" | sha1sum | cut -d ' ' -f 1)
if [ "$(redis-cli -e script exists "$digest")" != 1 ]; then
	cat "$lua/read.lua" "$lua/step.lua" | redis-cli -e -x script load >/dev/null
fi
[ -n "${REDIS_ADDRESS:-}" ] || exit 0 # alone
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
