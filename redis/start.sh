#!/bin/sh
# Becomes redis-server with redis.conf and the users of users.acl. Their passwords come from the
# environment, because a command line shows in ps and docker inspect; only their hashes are written
# to a file, which belongs on a tmpfs (ACL_FILE). Arguments are further settings of Redis.
set -eu
here=$(dirname "$0")
acl=${ACL_FILE:-/run/redis/users.acl}

# hash NAME PASSWORD prints the sed command that fills in the password's SHA-256.
hash() {
	if [ -z "$2" ]; then
		echo "error: REDIS_$1_PASSWORD is empty: every user needs a password" >&2
		exit 2
	fi
	echo "s/@$1@/$(printf %s "$2" | sha256sum | cut -d ' ' -f 1)/"
}

umask 077
admin=$(hash ADMIN "${REDIS_ADMIN_PASSWORD:-}")
writer=$(hash WRITER "${REDIS_WRITER_PASSWORD:-}")
reader=$(hash READER "${REDIS_READER_PASSWORD:-}")
exporter=$(hash EXPORTER "${REDIS_EXPORTER_PASSWORD:-}")
sed -e '/^#/d' -e '/^$/d' -e "$admin" -e "$writer" -e "$reader" -e "$exporter" "$here/users.acl" >"$acl"
unset REDIS_ADMIN_PASSWORD REDIS_WRITER_PASSWORD REDIS_READER_PASSWORD REDIS_EXPORTER_PASSWORD
exec redis-server "$here/redis.conf" --aclfile "$acl" "$@"
