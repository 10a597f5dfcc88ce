#!/bin/sh
# The health check of a Redis server or Sentinel in Docker. It prints the role, which make health shows. It also
# loads the readers' script after a restart, because the readers' user has no right to do so (users.acl) and
# the writer loads it only on the primary.
set -eu
lua=${REDIS_LUA:-/etc/redis-lua}
if [ -n "${SENTINEL_ADDRESS:-}" ]; then
	# -e: exit with an error when the reply is one, such as NOQUORUM.
	redis-cli -e -p 26379 sentinel ckquorum "$SENTINEL_MASTER_NAME"
	exit
fi
redis-cli -e ping >/dev/null
digest=$(cat "$lua/read.lua" "$lua/step.lua" | sha1sum | cut -d ' ' -f 1)
if [ "$(redis-cli -e script exists "$digest")" != 1 ]; then
	cat "$lua/read.lua" "$lua/step.lua" | redis-cli -e -x script load >/dev/null
fi
[ -n "${REDIS_ADDRESS:-}" ] || exit 0 # a single server
# The first line of the reply is the role. For a slave, host, port and state of the link follow.
redis-cli -e role | { # the exit status is that of the last command in braces
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
