# shellcheck shell=sh disable=SC2154
# Sourced by start.sh, which sets acl and data: starts a Sentinel. Its configuration file holds the state that
# must survive a restart: the primary, the other Sentinels, the epochs. Everything else in the file is written
# again at each start.
conf=$data/sentinel.conf
learned=
if [ -f "$conf" ]; then
	learned=$(sed -nE '/^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) /p' "$conf")
fi
if [ -z "$learned" ]; then
	learned="sentinel monitor $SENTINEL_MASTER_NAME $REDIS_FIRST_PRIMARY 6379 2"
fi
# The passwords are in plain text, because the Sentinel logs in with them.
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
	# Time without a reply after which a server counts as down. A Sentinel pings once a second, and values
	# below 3 s caused a second failover right after the first.
	sentinel down-after-milliseconds $SENTINEL_MASTER_NAME ${SENTINEL_DOWN_AFTER_MS:-3000}
	# Time for which a restarted primary may load its data before it counts as down. By default Sentinels wait
	# for it without a limit.
	sentinel master-reboot-down-after-period $SENTINEL_MASTER_NAME ${SENTINEL_DOWN_AFTER_MS:-3000}
	# A failed failover is retried after twice this time. The default is three minutes.
	sentinel failover-timeout $SENTINEL_MASTER_NAME 10000
	sentinel parallel-syncs $SENTINEL_MASTER_NAME 1
END
mv "$conf.new" "$conf"
unset REDIS_ADMIN_PASSWORD REDIS_EXPORTER_PASSWORD SENTINEL_PASSWORD SENTINEL_CLIENT_PASSWORD password
exec redis-server "$conf" --sentinel
