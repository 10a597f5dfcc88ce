# shellcheck shell=bash disable=SC2154,SC2317
# Sourced by run.sh after checks.sh: the checks of three Redis servers and three Sentinels
# (docker-compose.sentinel.yaml). The first one turns the running stack into that; what is started
# stays so until make clean.

# on SERVICE COMMAND...: in its container, as the operator of its Redis.
on() { docker compose exec -T "$1" redis-cli "${@:2}"; }

sentinel() { on "${1:-sentinel-1}" -p 26379 sentinel "${@:2}"; }

# primary: the server that a Sentinel, or the one that is given, names.
primary() {
	local address
	address=$(sentinel "${1:-sentinel-1}" get-master-addr-by-name posts | head -n 1)
	case $address in
	*.11) echo redis ;;
	*.12) echo redis-2 ;;
	*.13) echo redis-3 ;;
	*) fail "the primary is $address" ;;
	esac
}

# follow SERVICE...: they are Redis replicas whose link works, and so are no others.
follow() {
	local service
	for service; do
		on "$service" role | tr '\n' ' ' | grep '^slave .* connected ' || return
	done
	on "$(primary)" info replication | tr -d '\r' | grep -x "connected_slaves:$#"
}

# others SERVICE: the servers but this one.
others() { echo redis redis-2 redis-3 | tr ' ' '\n' | grep -vx "$1"; }

# under_writes SECONDS COMMAND...: while posts are written. Writes may be refused for so long at most,
# and every post that was acknowledged must be at every server and reader in the end.
under_writes() {
	local most=$1 status=0 writes
	shift
	"$work/writes" -url "$writer" -prefix "$RANDOM-" -acknowledged "$work/acknowledged" >"$work/writes.log" 2>&1 &
	writes=$!
	sleep 1
	set +e # as in run_check
	(
		set -e
		"$@"
	)
	status=$?
	set -e
	sleep 1
	kill -INT "$writes"
	wait "$writes" || status=$?
	cat "$work/writes.log"
	note "$(head -n 1 "$work/writes.log")"
	[ "$status" -eq 0 ] || return "$status"
	awk -v most="$most" 'NR == 1 { exit !($1 > 0 && $(NF - 1) <= most) }' "$work/writes.log" || fail "no write for more than $most s"
	eventually 20 converged
	everywhere "$work/acknowledged"
}

# everywhere FILE: each post of which the id is in the file is at every server and every reader.
everywhere() {
	local service address missing
	sort "$1" >"$work/want"
	for service in redis redis-2 redis-3; do
		on "$service" --scan --pattern '{posts:0}:p:*' | sed 's/^{posts:0}:p://' | sort >"$work/have"
		missing=$(comm -23 "$work/want" "$work/have" | wc -l)
		expect 0 "$missing" "acknowledged posts that $service lacks"
	done
	while read -r address; do
		sed "s|.*|url = \"http://$address/post?id=&\"\noutput = \"/dev/null\"|" "$work/want" >"$work/urls"
		curl -sS --max-time 30 -w '%{http_code}\n' -K "$work/urls" | sort | uniq -c | sed "s/^/$address: /"
	done < <(addresses reader reader-direct) | tee -a /dev/stderr | awk '$3 != 200 { bad = 1 } END { exit bad || NR != 4 }' ||
		fail "a reader lacks acknowledged posts"
}

same_values() { # the posts of all servers are the same, byte for byte
	local service
	for service in redis redis-2 redis-3; do
		on "$service" --scan --pattern '{posts:0}:p:*' | sort | docker compose exec -T "$service" sh -c 'xargs -n 500 redis-cli mget | sha256sum'
	done | sort -u | tee -a /dev/stderr | awk 'END { exit NR != 1 }'
}

# firing ALERT
firing() { [ -n "$(query "ALERTS{alertname=\"$1\", alertstate=\"firing\"}")" ]; }

check_sentinel_start() {
	local s
	says "make start REDIS=sentinel: the running stack gets three servers and three Sentinels, and keeps its posts"
	put check "from one Redis"
	make start REDIS=sentinel
	make health | tee -a /dev/stderr | grep -c 'primary of 2 Redis replicas\|Redis replica of .*, link connected\|OK 3 usable Sentinels' | grep -x 6
	expect "redis redis redis" "$(for s in 1 2 3; do primary "sentinel-$s"; done | xargs)" "the primary, for each Sentinel"
	in_rotation 3
	curl -sS --fail "$gateway/post?id=check" | grep "from one Redis"
	eventually 20 converged
	eventually 20 same_values
}

check_sentinel_hardening() {
	export COMPOSE_FILE="${COMPOSE_FILE:-docker-compose.yaml}:docker-compose.sentinel.yaml" # for docker compose config
	check_hardening
	check_ports
	says "servers and Sentinels are as hardened as the rest, and open no port"
	# shellcheck disable=SC2046 # ids, to be split
	! docker inspect --format '{{.Path}} {{.Args}} {{.Config.Cmd}} {{.Config.Healthcheck}}' $(containers) | grep -e '-demo' || return
	! REDIS_ADMIN_PASSWORD=p REDIS_WRITER_PASSWORD=p REDIS_READER_PASSWORD=p REDIS_EXPORTER_PASSWORD=p REDIS_REPLICA_PASSWORD=p \
		SENTINEL_PASSWORD=p SENTINEL_CLIENT_PASSWORD=p docker compose config | grep -e '-demo'
}

check_sentinel_users() {
	says "Redis replicas, Sentinels and their clients may do what they have to, and nothing else"
	# refuses SERVICE USER PORT: all commands of the standard input.
	refuses() {
		local commands
		commands=$(cat)
		docker compose exec -T -e "REDISCLI_AUTH=$2-demo" "$1" redis-cli --user "$2" -p "$3" <<<"$commands" >"$work/answers"
		grep . "$work/answers" | paste - <(echo "$commands")
		expect "$(wc -l <<<"$commands")" "$(grep -c '^NOPERM' "$work/answers")" "commands that $1 refuses to $2"
	}
	local user
	for user in replica sentinel; do
		refuses redis "$user" 6379 <<-'END'
			get {posts:0}:p:check
			set {posts:0}:p:check x
			publish posts_updates x
			subscribe posts_updates
			eval "return(1)" 0
			replicaof no one
			config get masterauth
			config set dir /tmp
			acl list
			client list
			flushall
			shutdown
		END
	done
	for user in client exporter; do
		refuses sentinel-1 "$user" 26379 <<-'END'
			sentinel failover posts
			sentinel remove posts
			sentinel set posts quorum 1
			sentinel monitor x 127.0.0.1 1 1
			sentinel reset posts
			sentinel config get announce-ip
			publish __sentinel__:hello x
			acl list
			shutdown
		END
	done
	docker compose exec -T -e REDISCLI_AUTH= sentinel-1 redis-cli -p 26379 ping | grep NOAUTH
	# What was refused above is all that was refused.
	local service
	for service in redis redis-2 redis-3; do
		on "$service" acl log 100 | grep -A 1 '^username$' | grep -vxE 'username|--|replica|sentinel' && fail "$service refused something to others" && return 1
	done
	for service in redis-2 redis-3; do
		expect "" "$(on "$service" acl log)" "refusals of $service"
	done
	for service in 2 3; do
		expect "" "$(on "sentinel-$service" -p 26379 acl log)" "refusals of sentinel-$service"
	done
}

check_sentinel_prometheus() {
	watched() {
		[ "$(query 'count(redis:up == 1)')" = 6 ] && [ "$(query 'redis:quorum')" = 1 ] && [ "$(query 'sum(redis:link_up)')" = 2 ] &&
			[ "$(query 'sum(redis:primary)')" = 1 ]
	}
	eventually 60 watched
	check_prometheus_rules
	says "Prometheus sees every server and every Sentinel, and no alert fires"
}

check_sentinel_killed() {
	says "the primary killed: another one takes over, no read fails, no acknowledged post is lost, and the old one follows"
	local old
	old=$(primary)
	replaced() {
		docker kill --signal KILL "$(name "$old")"
		took_over() { [ "$(primary)" != "$old" ] && put check "after the kill"; }
		eventually 15 took_over
		# The alerts say what happened, and not that Redis is down.
		eventually 20 firing RedisFailover
		! firing RedisDown || return
		docker start "$(name "$old")"
		# shellcheck disable=SC2046 # names, to be split
		eventually 40 follow $(others "$(primary)")
	}
	under_load under_writes 10 replaced
	eventually 20 same_values
}

check_sentinel_paused() {
	says "the primary frozen: another one takes over, no read fails, no acknowledged post is lost, and the old one follows"
	local old
	old=$(primary)
	frozen() {
		docker pause "$(name "$old")"
		took_over() { [ "$(primary)" != "$old" ] && put check "after the pause"; }
		eventually 20 took_over
		docker unpause "$(name "$old")"
		# shellcheck disable=SC2046 # names, to be split
		eventually 40 follow $(others "$(primary)")
	}
	under_load under_writes 12 frozen
	eventually 20 same_values
}

check_sentinel_planned() {
	says "make failover, twice: writes wait for seconds, no read fails, no acknowledged post is lost"
	# failed_over OLD: the primary is another server, and the two that are left follow it.
	failed_over() {
		[ "$(primary)" != "$1" ] && put check "after the failover"
		# shellcheck disable=SC2046 # names, to be split
		follow $(others "$(primary)")
	}
	planned() {
		local old
		for _ in 1 2; do
			old=$(primary)
			make failover | tee -a /dev/stderr | grep 'Writes were out for .*; none was lost'
			eventually 10 failed_over "$old"
		done
	}
	under_load under_writes 8 planned
	eventually 20 same_values
	note "$(grep -o 'Writes were out for [^;]*' "$work/output" | sort -u | xargs)"
}

check_sentinel_benchmark() {
	says "the benchmark kills and moves the primary: no read fails, and the failover that is planned loses nothing"
	local report=$work/benchmark/benchmark-report.partial.md
	benchmark/run_benchmark.sh --only failover --posts 1000 --rate 500 --out "$work/benchmark" # fails when a promise is broken
	sed -n '/^## Redis fails over/,/^## How/p' "$report"
	expect 2 "$(grep -c '^| \(kill -9\|planned failover\) .* to .* | ' "$report")" "failovers in the report"
	note "$(grep -o 'no write for .* s, all readers in step after [^,]*' "$report")"
	eventually 20 same_values
}

check_sentinel_dashboards() {
	check_dashboards -optional ""
	says "every query of every dashboard and rule has data with three servers, too"
}

check_sentinel_stop_keeps_posts() {
	says "make stop, make start: three servers again, the same primary, every post; writes that await and readers that read from Redis replicas"
	local before posts
	before=$(primary)
	posts=$(on "$before" dbsize)
	make stop
	expect "" "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project")" "containers after make stop"
	WRITE_REPLICAS=1 REDIS_READ_FROM=replica make start # without REDIS=sentinel
	expect "$before" "$(primary)" "the primary"
	expect "$posts" "$(on "$before" dbsize)" "keys"
	eventually 20 converged
	same_values
}

check_sentinel_single_is_refused() {
	says "one Redis alone does not start from the data of a Redis replica"
	local service
	service=$(others "$(primary)" | tail -n 1)
	! docker compose exec -T -e REDIS_ADDRESS= -e ACL_FILE=/run/redis/other "$service" sh /etc/redis/start.sh >"$work/refused" 2>&1 || return
	cat "$work/refused"
	grep 'last ran as a Redis replica' "$work/refused"
}
