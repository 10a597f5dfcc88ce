#!/usr/bin/env bash
# Runs the tests of the protocol on other servers than the installed redis-server: Redis 8, Valkey 8 and
# Valkey 9 of Debian's newer suites. Ends with 0 when every test passed on each server that could be had;
# the others are named as skipped.
#
#	test/redis/run.sh [SUITE PRODUCT]    one server alone, such as: forky valkey
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ $# -eq 2 ]; then
	servers=("$1 $2")
else
	servers=("forky redis" "trixie valkey" "forky valkey")
fi
# What depends on the server: scripts, subscriptions, snapshots, roles, failovers, moves of a slot, access lists.
tests() {
	local e2e failed=0
	go test -count=1 ./internal/test/e2e -run 'AccessList|SentinelKill|ClusterKill|ClusterMigration|ClusterReshard|ClusterAtomic|Relay|RedisIsFlushed' &
	e2e=$!
	go test -count=1 ./internal/redisnode ./internal/cache/... -run '/^redis$' \
		-skip 'Simulation|Memory|Store|Growth|Grown|PageSize|SlowLink|ForeignKeys|Crowded|Idle|EmptyRedis|False|DuringClose' || failed=1
	wait "$e2e" || failed=1
	return "$failed"
}

tested=() failed=() skipped=()
reason=$(mktemp)
trap 'rm -f "$reason"' EXIT
for server in "${servers[@]}"; do
	read -r suite product <<<"$server"
	if ! bin=$(test/redis/fetch.sh "$suite" "$product" 2>"$reason"); then
		skipped+=("$product of Debian $suite: $(tail -n 1 "$reason")")
		continue
	fi
	version=$("$bin/redis-server" --version | sed -E 's/^(Redis|Valkey) server v=([^ ]*).*/\1 \2/')
	echo "-- $version"
	if (PATH=$bin:$PATH tests); then
		tested+=("$version")
	else
		failed+=("$version")
	fi
done

for version in "${tested[@]}"; do echo "tested on $version"; done
for server in "${skipped[@]}"; do echo "skipped: $server"; done
for version in "${failed[@]}"; do echo "FAILED on $version"; done
[ ${#failed[@]} -eq 0 ]
