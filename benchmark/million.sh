#!/usr/bin/env bash
# A million posts in one reader: how fast they are imported and loaded, what memory they take, what
# the garbage collector costs while they are updated, and what idle connections cost beside them.
#
#   benchmark/million.sh [-r ROUNDS] [-d SECONDS] [-n POSTS]
#
# ROUNDS is for the load, SECONDS for each rate of updates. Needs two cores and what lanes.sh needs;
# everything listens on 127.0.0.1 and is stopped at the end.
cd "$(dirname "$0")/.."
# shellcheck source=benchmark/lib.sh
. benchmark/lib.sh

rounds=3 seconds=30 posts=1000000
options "$@"
need jq redis-cli
# The reader and the idle connections have a descriptor each for one connection.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

memory() { awk -v what="$1:" '$1 == what { print $2 }' "/proc/$served/status"; }
now() { date +%s%N; }

prepare 21479 "$posts" 0,1
jq -r '"import: \(.written) posts in \(.seconds * 100 | round / 100) s: \(.written / .seconds | floor)/s (wanted: 100000)"' "$work/import.json"

for round in $(seq "$rounds"); do
	"$work/load" scan -redis "$REDIS_ADDR" | awk '{ gsub("/s", "", $NF); print $NF }' >>"$work/scan.result"
	began=$(now)
	serve 0,1 GODEBUG=gctrace=1
	awk -v n="$posts" -v us=$((($(now) - began) / 1000)) 'BEGIN { print n / us * 1e6 }' >>"$work/ready.result"
	if [ "$round" -lt "$rounds" ]; then
		end "$served"
	fi
done
read -r scan scan_low scan_high < <(median "$work/scan.result")
read -r ready ready_low ready_high < <(median "$work/ready.result")
awk -v a="$ready" -v al="$ready_low" -v ah="$ready_high" -v b="$scan" -v bl="$scan_low" -v bh="$scan_high" 'BEGIN {
	printf "start to ready: %.0f posts/s (%.0f-%.0f); bare SCAN and MGET: %.0f/s (%.0f-%.0f); ratio %.2f (wanted: 0.9)\n", a, al, ah, b, bl, bh, a / b }'
echo "resident after the load: $(memory VmHWM) kB at most"

# observe runs while updates go on: it scrapes as Prometheus would, and notes by how many writes the
# reader is behind Redis. The reader is looked at first, so what comes between the two looks counts too.
observe() {
	local applied
	while sleep 1; do
		curl -s -o /dev/null "$reader/metrics"
		applied=$(curl -s "$reader/status" | jq -e .applied_version)
		echo $(($(redis-cli -p "${REDIS_ADDR#*:}" get '{posts:0}:seq') - applied)) >>"$work/lag"
	done
}
updates() { # updates RATE OPTION...: with reads going on; prints what the reader made of them
	local rate=$1 lines watcher read
	shift
	lines=$(wc -l <"$work/reader.log")
	: >"$work/lag"
	observe &
	watcher=$!
	wrk -t 1 -c 4 -d "${seconds}s" "$reader/post?id=post-7" >"$work/wrk.log" &
	read=$!
	"$work/load" updates -writer "$writer" -posts "$posts" -rate "$rate" -duration "${seconds}s" "$@"
	wait "$read"
	kill "$watcher"
	wait "$watcher" 2>/dev/null || true
	clean "$work/wrk.log"
	awk '/Requests\/sec/ { printf "  reads beside them: %.0f/s, none failed\n", $2 }' "$work/wrk.log"
	sort -g "$work/lag" | awk '{ v[NR] = $1 } END { printf "  behind Redis, looked at %d times: median %d, at most %d writes\n", NR, v[int((NR + 1) / 2)], v[NR] }'
	# gc 7 @3.1s 1%: 0.05+8.1+0.02 ms clock, 0.05+0/8.1/0+0.02 ms cpu, ...: the world is stopped twice.
	tail -n +"$((lines + 1))" "$work/reader.log" | awk '/^gc / { split($5, p, "+"); print p[1]; print p[3] }' | sort -g |
		awk '{ v[NR] = $1; } END { if (NR) printf "  collections: %d; the world was stopped for %.3f ms (p50), %.3f ms (p99; of under 50 collections the longest), %.3f ms (at most)\n", NR / 2, v[int((NR + 1) / 2)], v[int(NR * 0.99 + 0.999)], v[NR] }'
	tail -n +"$((lines + 1))" "$work/reader.log" | awk -v s="$seconds" '/^gc / { n = split($8, p, "[+/]"); for (i = 1; i <= n; i++) ms += p[i] }
		END { printf "  collector: %.1f %% of one core\n", ms / s / 10 }'
}
echo "1,000 updates/s (wanted: stopped for under 1 ms at p99, under 5 % of one core):"
updates 1000
echo "10,000 updates/s, as lines of an import:"
updates 10000 -bulk
echo "resident with updates and scrapes: $(memory VmHWM) kB at most (wanted: 512000)"

# In a fresh reader, whose heap has no room left over from updates.
end "$served"
serve 0,1
before=$(memory VmRSS)
"$work/load" idle -reader 127.0.0.1:$reader_port -connections 10000 -duration 5s >"$work/idle.log" &
idle=$!
for _ in $(seq 600); do
	grep -q idle "$work/idle.log" && break
	kill -0 "$idle" 2>/dev/null || break
	sleep 0.1
done
sleep 3 # until the reader has found them idle
after=$(memory VmRSS)
wait "$idle"
echo "10,000 idle connections: $((after - before)) kB more resident (wanted: 102400 at most)"
