# shellcheck shell=bash disable=SC2154,SC2317
#
# Sourced by run.sh, which sets work and own_engine: the checks of one Redis, which run in the order of
# this file, and what all checks share.
# The first line of a check says what holds. No
# grep -q: it ends at the first match, and with pipefail whoever still writes to it fails the check.

project=heavy-read-api-test
gateway=http://127.0.0.1:${GATEWAY_PORT:-9080}
writer=http://127.0.0.1:${WRITER_PORT:-8080}
writer_operations=http://127.0.0.1:${WRITER_METRICS_PORT:-9092}
prometheus=http://127.0.0.1:${PROMETHEUS_PORT:-9090}

curl() { command curl --noproxy '*' "$@"; } # all that is asked runs here
export -f curl # for the README's lines

# says TEXT: what the check that runs is about.
says() { printf '%s' "$1" >"$work/says"; }

# run_check NAME: the function, with errexit, which a condition would switch off.
run_check() {
	local begun=$SECONDS status=0
	echo "$1" >"$work/says"
	: >"$work/output" # appended to, also by tee -a /dev/stderr
	set +e
	(
		set -euo pipefail
		"$1"
	) >>"$work/output" 2>&1
	status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok   %s (%d s)\n' "$(cat "$work/says")" $((SECONDS - begun))
		sed -n 's/^note: /     /p' "$work/output"
	else
		failed=$((failed + 1))
		printf 'FAIL %s (%s, %d s)\n' "$(cat "$work/says")" "$1" $((SECONDS - begun))
		tail -n 30 "$work/output" | sed 's/^/     /'
	fi
}

note() { echo "note: $*"; }

fail() {
	echo "$*" >&2
	return 1
}

# eventually SECONDS COMMAND...: until it succeeds.
eventually() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || fail "not within the time: $*" || return
		sleep 0.3
	done
}

# expect WANT GOT WHAT
expect() { [ "$1" = "$2" ] || fail "$3: want $1, got $2"; }

name() { echo "$project-$1-${2:-1}"; } # of a container

containers() { docker compose ps --quiet "$@"; }

# addresses SERVICE...: on this machine.
addresses() {
	# shellcheck disable=SC2046 # ids, to be split
	docker inspect --format '{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}}{{println}}{{end}}{{end}}' \
		$(containers "$@") | sed '/^$/d'
}

# under_load COMMAND...: while reads go through the gateway, of which none may fail.
under_load() {
	local status=0 reads
	"$work/reads" -url "$gateway/post?id=check" >"$work/reads.log" 2>&1 &
	reads=$!
	sleep 1 # of load before anything happens
	set +e # as in run_check
	(
		set -e
		"$@"
	)
	status=$?
	set -e
	sleep 1
	kill -INT "$reads"
	wait "$reads" || status=$?
	cat "$work/reads.log"
	note "$(head -n 1 "$work/reads.log")"
	return "$status"
}

# put ID CONTENT: writes a post and prints its version.
put() {
	curl -sS --fail-with-body --max-time 5 -o /dev/null -D - -X POST "$writer/create" -H 'Content-Type: application/json' \
		-d "{\"id\":\"$1\",\"title\":\"t\",\"content\":\"$2\"}" | tr -d '\r' | awk 'tolower($1) == "x-version:" { print $2 }'
}

refuses_writes() { ! put check refused; }

# converged: every reader has every post of Redis, a new one included.
converged() {
	local content="converged $RANDOM$RANDOM" version address state
	version=$(put check "$content") || return
	while read -r address; do
		curl -sS --max-time 2 "http://$address/post?id=check" -H "X-Min-Version: $version" | grep "$content" || return
	done < <(addresses reader reader-direct)
	# Epoch, version and number of posts are the same everywhere, and everybody is in touch.
	state=$(addresses reader reader-direct | while read -r address; do
		curl -sS --max-time 2 "http://$address/status" | jq -c 'select(.synced and .subscription == "live") | [.epoch, .applied_version, .entries]'
	done)
	[ "$(sort -u <<<"$state" | wc -l)" = 1 ] && [ "$(wc -l <<<"$state")" = "$(addresses reader reader-direct | wc -l)" ]
}

# names: the readers that answer through the gateway, and how often.
names() {
	local i
	for ((i = 0; i < ${1:-60}; i++)); do
		printf 'url = "%s/post?id=check"\noutput = "/dev/null"\n' "$gateway"
	done >"$work/urls"
	curl -sS --max-time 30 -D - -K "$work/urls" | tr -d '\r' | awk 'tolower($1) == "x-served-by:" { print $2 }' | sort | uniq -c
}

in_rotation() { [ "$(names | wc -l)" = "$1" ]; }

healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]; }

redis_cli() { # redis_cli USER PASSWORD COMMAND...
	docker compose exec -T -e "REDISCLI_AUTH=$2" redis redis-cli ${1:+--user "$1"} "${@:3}"
}

# query EXPRESSION: what Prometheus answers, one value a line.
query() {
	curl -sS --max-time 5 -G "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[].value[1]'
}

check_start() {
	says "make start: everything becomes healthy, and three readers are in rotation"
	make start
	put check first
	in_rotation 3
	make health
}

check_readme() {
	says "README: the quick start's curl lines answer as it says"
	awk '/^## /{section = $0} /^```/{block = /^```sh/; next} section ~ /Quick start/ && block' README.md |
		sed -n '/curl/,$p' | grep -v '^make ' >"$work/readme.sh"
	bash -euo pipefail "$work/readme.sh" >"$work/readme.out"
	expect "201 200 200 304 200 204 404" "$(grep -ao 'HTTP/1.1 [0-9]*' "$work/readme.out" | cut -d ' ' -f 2 | xargs)" "answers"
	grep '"created":3' "$work/readme.out"
}

check_make_targets() {
	says "make test-write, test-read, stats and logs work"
	make test-write POST_ID=made | grep 'HTTP/1.1 201'
	make test-read POST_ID=made | grep 'Written by make test-write'
	make stats | tee -a /dev/stderr | awk '/-reader-(direct-)?[0-9]/ && $2 == "ready" && $(NF - 1) > 0 { n++ } END { exit n != 4 }'
	local target
	for target in logs logs-writer logs-reader logs-redis; do
		{ timeout 3 make "$target" || true; } | grep .
	done
}

check_docker_compose_spelling() {
	says "docker-compose, the program of its own, does as well as the plugin"
	mkdir -p "$work/standalone/bin" "$work/standalone/config"
	local plugin=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-compose
	ln -sf "$plugin" "$work/standalone/bin/docker-compose"
	export PATH=$work/standalone/bin:$PATH DOCKER_CONFIG=$work/standalone/config
	if docker compose version >/dev/null 2>&1; then
		note "not run: this machine has the plugin in a folder for all users"
		return
	fi
	make health
	docker-compose exec -T redis redis-cli ping | grep -x PONG
}

check_round_robin() {
	says "the gateway spreads reads evenly over three readers"
	names 300 | tee -a /dev/stderr | awk '$1 < 90 || $1 > 110 { bad = 1 } END { exit bad || NR != 3 }'
}

check_gateway_limits() {
	says "the gateway passes nothing but GET and HEAD of the reading routes"
	local path
	for path in /post-redis /post-marshal /post; do
		curl -sS --fail -o /dev/null "$gateway$path?id=check"
	done
	curl -sS --fail -o /dev/null "$gateway/health"
	curl -sSI --fail "$gateway/post?id=check" | grep -i '^etag:'
	curl -sSI --fail "$gateway/post?id=check" | grep -i '^x-request-id:'
	for path in /metrics /status /ready /create; do
		expect 404 "$(curl -sS -o /dev/null -w '%{http_code}' "$gateway$path")" "$path"
	done
	expect 404 "$(curl -sS -o /dev/null -w '%{http_code}' -X POST "$gateway/post?id=check")" "POST /post"
}

check_hardening() {
	says "no container runs as root, can write to its root, has a capability or can get one"
	local id pid status n=0
	for id in $(containers); do
		expect true "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$id")" "read-only root of $id"
		expect "[ALL] [no-new-privileges:true]" "$(docker inspect --format '{{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}' "$id")" "options of $id"
		[ "$(docker inspect --format '{{.HostConfig.Memory}}' "$id")" -gt 0 ] || fail "$id has no memory limit"
		[ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ]
		[ "$(docker inspect --format '{{index .HostConfig.LogConfig.Config "max-size"}}' "$id")" = 10m ]
		[ "$(docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' "$id")" = unless-stopped ]
		n=$((n + 1))
		[ "$own_engine" = yes ] || continue
		# What the kernel says of the main process.
		pid=$(docker inspect --format '{{.State.Pid}}' "$id")
		status=$(cat "/proc/$pid/status")
		awk '$1 == "Uid:" { exit $2 == 0 || $3 == 0 }' <<<"$status" || fail "$id runs as root"
		awk '$1 ~ /^Cap(Prm|Eff|Bnd|Inh|Amb):/ && $2 !~ /^0+$/ { exit 1 }' <<<"$status" || fail "$id has capabilities"
		awk '$1 == "NoNewPrivs:" { exit $2 != 1 }' <<<"$status" || fail "$id could get privileges"
		[ "$(docker inspect --format '{{.HostConfig.PidsLimit}}' "$id")" -gt 0 ] || fail "$id may have any number of processes"
		awk '$5 == "/" && $6 !~ /(^|,)ro(,|$)/ { exit 1 }' "/proc/$pid/mountinfo" || fail "the root of $id is writable"
	done
	note "$n containers"
}

check_ports() {
	says "ports of this machine are on 127.0.0.1; BIND_ADDRESS opens gateway and writer alone"
	local open
	# shellcheck disable=SC2046 # ids, to be split
	open=$(docker inspect --format '{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}{{println}}{{end}}{{end}}' $(containers) | sed '/^$/d' | sort -u)
	expect 127.0.0.1 "$open" "addresses"
	open=$(BIND_ADDRESS=0.0.0.0 docker compose config --format json |
		jq -r '.services | to_entries[] | .key as $name | .value.ports[]? | select(.host_ip != "127.0.0.1") | "\($name):\(.target)"' | sort | xargs)
	expect "apisix:9080 writer:8080" "$open" "what BIND_ADDRESS opens"
	for path in /metrics /ready /health; do
		expect 404 "$(curl -sS -o /dev/null -w '%{http_code}' "$writer$path")" "$path on the writer's open port"
		expect 200 "$(curl -sS -o /dev/null -w '%{http_code}' "$writer_operations$path")" "the writer's $path"
	done
}

check_passwords() {
	says "no password stands in a command line; every default of a password can be changed"
	# shellcheck disable=SC2046 # ids, to be split
	! docker inspect --format '{{.Path}} {{.Args}} {{.Config.Cmd}} {{.Config.Healthcheck}}' $(containers) | grep -e '-demo' || return
	! REDIS_ADMIN_PASSWORD=p REDIS_WRITER_PASSWORD=p REDIS_READER_PASSWORD=p REDIS_EXPORTER_PASSWORD=p docker compose config | grep -e '-demo'
}

check_redis_users() {
	says "a reader's password cannot write to Redis, and without a password nothing can be done"
	local value='{posts:0}:p:check' before user refused
	before=$(redis_cli reader reader-demo get "$value" | sha256sum)
	redis_cli reader reader-demo get "$value" | grep -a '"content":'
	for refused in "set $value x" "del $value" "publish posts_updates x" "xadd {posts:0}:log 1-1 e x" "flushall" "config set appendfsync no" \
		"eval return(redis.call('del',KEYS[1])) 1 $value" "eval_ro return(1) 0" "script load return(1)"; do
		for user in reader exporter; do
			# shellcheck disable=SC2086 # words, to be split
			redis_cli "$user" "$user-demo" $refused 2>&1 | grep -E "NOPERM|can't run this command|ACL failure" || fail "$user: $refused"
		done
		# shellcheck disable=SC2086 # words, to be split
		redis_cli "" "" $refused 2>&1 | grep NOAUTH || fail "nobody: $refused"
	done
	redis_cli "" "" get "$value" 2>&1 | grep NOAUTH
	redis_cli writer reader-demo ping 2>&1 | grep WRONGPASS
	expect "$before" "$(redis_cli reader reader-demo get "$value" | sha256sum)" "the post"
	docker compose exec -T redis redis-cli ping | grep -x PONG
}

check_redis_reach() {
	says "the gateway and Prometheus cannot reach Redis"
	local address
	address=$(docker inspect --format "{{(index .NetworkSettings.Networks \"${project}_data\").IPAddress}}" "$(name redis)")
	[ -n "$address" ]
	! docker compose exec -T apisix timeout 2 bash -c "exec 3<>/dev/tcp/$address/6379" || return
	! docker compose exec -T apisix getent ahostsv4 redis || return
	! docker compose exec -T prometheus wget -Y off -q -T 2 -O - "http://$address:6379" || return
	docker compose exec -T apisix bash -c "exec 3<>/dev/tcp/writer/8080" # the way of asking works
}

check_redis_calls_nobody() {
	says "nothing leads from Redis's networks to the outside"
	expect true "$(docker network inspect "${project}_data" --format '{{.Internal}}')" "data is internal"
	expect false "$(docker network inspect "${project}_redis" --format '{{index .Options "com.docker.network.bridge.enable_ip_masquerade"}}')" "Redis's port network translates addresses"
	expect "${project}_data ${project}_redis" "$(docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}' "$(name redis)" | xargs)" "networks of Redis"
}

check_memory_limit() {
	says "a reader knows its container's memory limit"
	docker logs "$(name reader)" 2>&1 | grep 'msg="Go memory limit set" bytes=724775731' # nine tenths of 768 MiB
}

check_prometheus_targets() {
	says "Prometheus scrapes every service, each reader by itself"
	all_up() { # writer, three readers, reader-direct, apisix, redis-exporter and itself
		curl -sS --max-time 5 "$prometheus/api/v1/targets?state=active" | jq -e '.data.activeTargets | all(.health == "up") and length == 8' >/dev/null
	}
	eventually 60 all_up
	curl -sS "$prometheus/api/v1/targets?state=active" | jq -r '.data.activeTargets[] | "\(.labels.job) \(.scrapeUrl)"' | sort
	expect 3 "$(query 'count(up{job="reader"} == 1)')" "readers"
}

check_prometheus_rules() {
	says "Prometheus loads its rules and finds them in order; no alert fires"
	curl -sS "$prometheus/api/v1/rules" | jq -e '[.data.groups[].rules[]] | length > 0 and all(.health != "err")' >/dev/null
	curl -sS "$prometheus/api/v1/rules" | jq -e '[.data.groups[].rules[] | select(.type == "alerting")] | length > 0 and all(.state != "firing")' >/dev/null
	note "$(curl -sS "$prometheus/api/v1/rules" | jq -r '[.data.groups[].rules[].type] | group_by(.) | map("\(length) \(.[0])") | join(", ")')"
}

check_dashboards() {
	says "every query of every dashboard and rule has data"
	queries() {
		local writes reads status=0
		while sleep 0.2; do put seen "$SECONDS" >/dev/null; done &
		writes=$!
		"$work/reads" -url "http://$(addresses reader-direct)/post?id=check" -rate 50 &
		reads=$!
		go run ./test/queries -prometheus "$prometheus" -wait 90s "$@" >"$work/queries" || status=$?
		kill "$writes" "$reads"
		cat "$work/queries"
		note "$(tail -n 1 "$work/queries")"
		return "$status"
	}
	under_load queries "$@"
}

check_reader_killed() {
	says "docker kill of a reader fails no read, and it comes back"
	killed() {
		docker kill "$(name reader 2)"
		eventually 20 in_rotation 2
		docker start "$(name reader 2)"
		eventually 30 in_rotation 3
	}
	under_load killed
	eventually 20 converged
}

check_reader_restarts() {
	says "a reader that ends by itself is started again"
	[ "$own_engine" = yes ] || { note "not run: the process is not ours to kill"; return; }
	local id
	id=$(docker inspect --format '{{.Id}}' "$(name reader 1)")
	kill -KILL "$(docker inspect --format '{{.State.Pid}}' "$id")"
	restarted() { [ "$(docker inspect --format '{{.RestartCount}}' "$id")" = 1 ] && healthy "$id"; }
	eventually 30 restarted
	eventually 30 in_rotation 3
	eventually 20 converged
}

check_reader_disconnected() {
	says "a reader that is cut off from the gateway, or from Redis, fails no read and converges"
	cut_off() {
		docker network disconnect "${project}_default" "$(name reader 3)"
		eventually 20 in_rotation 2
		put check "written meanwhile"
		docker network connect --alias reader "${project}_default" "$(name reader 3)"
		eventually 30 in_rotation 3
		eventually 20 converged
		# Without Redis it goes on from memory, and says so.
		docker network disconnect "${project}_data" "$(name reader 1)"
		put check "written once more"
		degraded() { docker compose ps --quiet reader | xargs -n 1 docker inspect --format '{{range .State.Health.Log}}{{.Output}}{{end}}' | grep degraded; }
		eventually 20 degraded
		in_rotation 3
		docker network connect --alias reader "${project}_data" "$(name reader 1)"
	}
	under_load cut_off
	eventually 30 converged
}

check_redis_disconnected() {
	says "Redis cut off from the stack: reads go on, writes are refused, and everything converges"
	cut_off() {
		docker network disconnect "${project}_data" "$(name redis)"
		eventually 10 refuses_writes
		in_rotation 3
		expect 503 "$(curl -sS -o /dev/null -w '%{http_code}' "$writer_operations/ready")" "the writer's /ready"
		docker network connect --alias redis "${project}_data" "$(name redis)"
	}
	under_load cut_off
	eventually 30 converged
}

check_redis_restarted() {
	says "Redis killed and restarted keeps every post; reads go on meanwhile"
	local before
	for i in $(seq 2000); do printf '{"id":"kept-%d","title":"t","content":"c %d"}\n' "$i" "$i"; done |
		curl -sS --fail --max-time 30 -X POST "$writer/import" -H 'Content-Type: application/x-ndjson' --data-binary @-
	kept() { # number and hash of the values in Redis
		docker compose exec -T redis sh -c "redis-cli --scan --pattern '{posts:0}:p:kept-*' | sort | xargs -n 500 redis-cli mget | sha256sum;
			redis-cli dbsize"
	}
	before=$(kept)
	kill_redis() {
		docker kill --signal KILL "$(name redis)"
		eventually 10 refuses_writes
		docker start "$(name redis)"
		eventually 60 healthy "$(name redis)"
		eventually 20 converged
	}
	under_load kill_redis
	expect "$before" "$(kept)" "the posts after a kill"
	docker compose --progress quiet restart redis
	eventually 60 healthy "$(name redis)"
	expect "$before" "$(kept)" "the posts after a restart"
	eventually 30 converged
	expect 200 "$(curl -sS -o /dev/null -w '%{http_code}' "$gateway/post-redis?id=kept-2000")" "the last post"
}

check_access_counters() {
	says "Redis refused nothing that the programs did, but that a reader loads its script after the restart"
	# Refusals of the checks above are not in the log: the restart forgot them.
	docker compose exec -T redis redis-cli --json acl log 100 | jq -e 'all(.[]; .username == "reader" and .object == "script|load")'
}

check_scale() {
	says "make scale N=5 puts five readers into rotation, N=3 takes two out, no read fails, and nobody is missed"
	both_ways() {
		make scale N=5
		in_rotation 5
		make scale N=3
		eventually 15 in_rotation 3
	}
	under_load both_ways
	eventually 20 converged
	three() { [ "$(query 'count(up{job="reader"})')" = 3 ]; }
	eventually 20 three
	sleep 6 # so that the rules are evaluated after it
	expect "" "$(query 'ALERTS{alertname="ReaderGone"}')" "alert for readers that were stopped"
}

check_stop_keeps_posts() {
	says "make stop keeps the posts, and make start has them again"
	put check "kept over a stop"
	make stop
	expect "" "$(docker ps --all --quiet --filter "label=com.docker.compose.project=$project")" "containers after make stop"
	make start
	curl -sS --fail "$gateway/post?id=check" | grep "kept over a stop"
	curl -sS --fail -o /dev/null "$gateway/post?id=kept-1234"
	in_rotation 3
}
