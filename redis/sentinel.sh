# shellcheck shell=sh disable=SC2154
# Sourced by start.sh, which sets here, acl and data: becomes a Sentinel. Its file holds what it has
# learned (which server is the primary, the other Sentinels, its epochs); it must survive a restart.
# All else in it is written anew.
conf=$data/sentinel.conf
learned=
if [ -f "$conf" ]; then
	learned=$(sed -nE '/^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) /p' "$conf")
fi
if [ -z "$learned" ]; then
	learned="sentinel monitor $SENTINEL_MASTER_NAME $REDIS_FIRST_PRIMARY 6379 2"
fi
# The passwords are in clear here, because a Sentinel has to log in with them.
cat >"$conf.new" <<-END
	port 26379
	dir $data
	protected-mode no
	aclfile $acl
	sentinel announce-ip $SENTINEL_ADDRESS
	sentinel sentinel-user sentinel
	sentinel sentinel-pass $(quoted "$SENTINEL_PASSWORD")
	$learned
	sentinel auth-user $SENTINEL_MASTER_NAME sentinel
	sentinel auth-pass $SENTINEL_MASTER_NAME $(quoted "$SENTINEL_PASSWORD")
	# A server that was silent for so long is down. A Sentinel pings once a second: less than 3 s caused
	# a second failover after the first.
	sentinel down-after-milliseconds $SENTINEL_MASTER_NAME ${SENTINEL_DOWN_AFTER_MS:-3000}
	# So is one that was restarted and loads its posts for so long. By default loading is no reason.
	sentinel master-reboot-down-after-period $SENTINEL_MASTER_NAME ${SENTINEL_DOWN_AFTER_MS:-3000}
	# A failover that failed is tried again after twice this time; the default is three minutes.
	sentinel failover-timeout $SENTINEL_MASTER_NAME 10000
	sentinel parallel-syncs $SENTINEL_MASTER_NAME 1
END
mv "$conf.new" "$conf"
unset REDIS_ADMIN_PASSWORD REDIS_EXPORTER_PASSWORD SENTINEL_PASSWORD SENTINEL_CLIENT_PASSWORD password
exec redis-server "$conf" --sentinel
