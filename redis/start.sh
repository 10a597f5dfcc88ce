#!/bin/sh
# Starts redis-server with redis.conf and the users of users.acl, or a Sentinel (sentinel.sh) if
# SENTINEL_ADDRESS is set. Passwords come from the environment, because ps and docker inspect show command
# lines. The access list (ACL_FILE) holds only their hashes and belongs on a tmpfs. Arguments are additional
# settings of Redis.
#
# If REDIS_ADDRESS is set, the server is one of several that Sentinels monitor. Its configuration is then a
# file beside its data, because Sentinels change a server's role there (CONFIG REWRITE).
set -eu
here=$(dirname "$0")
acl=${ACL_FILE:-/run/redis/users.acl}
data=${REDIS_DATA:-/data}

# hash VARIABLE MARK prints the sed command that replaces a mark with the SHA-256 of a password.
hash() {
	eval "password=\${$1:-}"
	if [ -z "$password" ]; then
		echo "error: $1 is empty: every user needs a password" >&2
		exit 2
	fi
	echo "s/@$2@/$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)/"
}

# users FILE SED... appends the users of a file to the access list.
users() {
	file=$1
	shift
	sed -e '/^#/d' -e '/^$/d' "$@" "$here/$file" >>"$acl"
}

# quoted VALUE prints the value quoted for Redis's configuration file.
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

umask 077
: >"$acl"
admin=$(hash REDIS_ADMIN_PASSWORD ADMIN)

if [ -n "${SENTINEL_ADDRESS:-}" ]; then
	sentinel=$(hash SENTINEL_PASSWORD SENTINEL)
	client=$(hash SENTINEL_CLIENT_PASSWORD CLIENT)
	exporter=$(hash REDIS_EXPORTER_PASSWORD EXPORTER)
	users sentinel.acl -e "$admin" -e "$exporter" -e "$sentinel" -e "$client"
	# shellcheck source=redis/sentinel.sh
	. "$here/sentinel.sh"
fi

writer=$(hash REDIS_WRITER_PASSWORD WRITER)
reader=$(hash REDIS_READER_PASSWORD READER)
exporter=$(hash REDIS_EXPORTER_PASSWORD EXPORTER)
users users.acl -e "$admin" -e "$writer" -e "$reader" -e "$exporter"
conf=$here/redis.conf
# role prints the line in which CONFIG REWRITE stores the server's primary. A primary has no such line.
role() { sed -n '/^replicaof /p' "$data/redis.conf" | tail -n 1; }

if [ -n "${REDIS_ADDRESS:-}" ]; then
	replica=$(hash REDIS_REPLICA_PASSWORD REPLICA)
	sentinel=$(hash SENTINEL_PASSWORD SENTINEL)
	users replication.acl -e "$replica" -e "$sentinel"
	conf=$data/redis.conf
	if [ -f "$conf" ]; then
		role=$(role)
	elif [ "$REDIS_ADDRESS" != "$REDIS_FIRST_PRIMARY" ]; then
		role="replicaof $REDIS_FIRST_PRIMARY 6379"
	else
		role=
	fi
	# Everything but the role is written again, so that changed settings and passwords take effect. The file
	# is replaced by a rename, because a truncated one would turn a Redis replica into a primary.
	cat >"$conf.new" <<-END
		include $here/redis.conf
		include $here/replication.conf
		aclfile $acl
		masteruser replica
		masterauth $(quoted "$REDIS_REPLICA_PASSWORD")
		replica-announce-ip $REDIS_ADDRESS
		min-replicas-to-write ${REDIS_MIN_REPLICAS:-1}
		$role
	END
	mv "$conf.new" "$conf"
elif [ -f "$data/redis.conf" ] && [ -n "$(role)" ]; then
	cat >&2 <<-END
		error: this server last ran as a Redis replica, so another server may have newer writes.
		Start the stack with REDIS=sentinel and make this server the primary (sentinel failover), or delete
		$data/redis.conf to continue with the posts that this server has.
	END
	exit 2
else
	set -- --aclfile "$acl" "$@"
fi
unset REDIS_ADMIN_PASSWORD REDIS_WRITER_PASSWORD REDIS_READER_PASSWORD REDIS_EXPORTER_PASSWORD REDIS_REPLICA_PASSWORD SENTINEL_PASSWORD password
exec redis-server "$conf" "$@"
