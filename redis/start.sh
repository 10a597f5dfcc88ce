#!/bin/sh
# Becomes redis-server with redis.conf and the users of users.acl. Their passwords come from the
# environment, because a command line shows in ps and docker inspect; only their hashes are written
# to a file, which belongs on a tmpfs (ACL_FILE). Further arguments are settings of Redis.
set -eu
here=$(dirname "$0")
acl=${ACL_FILE:-/run/redis/users.acl}

hash() {
	printf %s "$1" | sha256sum | cut -d ' ' -f 1
}

for password in "${REDIS_WRITER_PASSWORD:-}" "${REDIS_READER_PASSWORD:-}" "${REDIS_EXPORTER_PASSWORD:-}"; do
	if [ -z "$password" ]; then
		echo "error: set REDIS_WRITER_PASSWORD, REDIS_READER_PASSWORD and REDIS_EXPORTER_PASSWORD" >&2
		exit 2
	fi
done

umask 077
sed -e '/^#/d' -e '/^$/d' \
	-e "s/@WRITER@/$(hash "${REDIS_WRITER_PASSWORD}")/" \
	-e "s/@READER@/$(hash "${REDIS_READER_PASSWORD}")/" \
	-e "s/@EXPORTER@/$(hash "${REDIS_EXPORTER_PASSWORD}")/" \
	"$here/users.acl" >"$acl"
unset REDIS_WRITER_PASSWORD REDIS_READER_PASSWORD REDIS_EXPORTER_PASSWORD
exec redis-server "$here/redis.conf" --aclfile "$acl" "$@"
