#!/bin/sh
# Becomes redis-server with redis.conf and the users of users.acl, or with SENTINEL_ADDRESS set, a
# Sentinel (sentinel.sh). Passwords come from the environment, because a command line shows in ps and
# docker inspect; of the users' passwords only hashes are written to a file, which belongs on a tmpfs
# (ACL_FILE). Arguments are further settings of Redis.
#
# With REDIS_ADDRESS set, the server is one of several that Sentinels watch. Its configuration is then
# a file beside its data, because Sentinels change the role of a server there (CONFIG REWRITE).
set -eu
here=$(dirname "$0")
acl=${ACL_FILE:-/run/redis/users.acl}
data=${REDIS_DATA:-/data}

# hash VARIABLE MARK prints the sed command that puts the SHA-256 of a password in the place of its mark.
hash() {
	eval "password=\${$1:-}"
	if [ -z "$password" ]; then
		echo "error: $1 is empty: every user needs a password" >&2
		exit 2
	fi
	echo "s/@$2@/$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)/"
}

# users FILE SED... writes the access list.
users() {
	file=$1
	shift
	sed -e '/^#/d' -e '/^$/d' "$@" "$here/$file" >>"$acl"
}

# quoted VALUE prints it as a configuration file of Redis takes it.
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
# role prints the line by which CONFIG REWRITE keeps the server's primary; a primary has none.
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
	# All but the role is written anew, so that a changed setting or password counts. Renamed, because
	# a file that was cut short would make a primary of a Redis replica.
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
		error: this server last ran as a Redis replica, so another one may have writes that it lacks.
		Start the stack with REDIS=sentinel again and make this server the primary (sentinel failover), or
		delete $data/redis.conf to go on with what it has.
	END
	exit 2
else
	set -- --aclfile "$acl" "$@"
fi
unset REDIS_ADMIN_PASSWORD REDIS_WRITER_PASSWORD REDIS_READER_PASSWORD REDIS_EXPORTER_PASSWORD REDIS_REPLICA_PASSWORD SENTINEL_PASSWORD password
exec redis-server "$conf" "$@"
