#!/bin/sh
# The stack in Docker: docker.sh images|start|stop|... Run by stack.sh, in the repository's folder.
set -eu
. local/compose.sh

# The maximum number of readers: one for each port in READER_PORTS, at most 20, as on the local stack.
ports=${READER_PORTS:-8082-8101}
max_readers=$((${ports#*-} - ${ports%-*} + 1))
[ "$max_readers" -le 20 ] || max_readers=20

# images pulls and builds what is missing. It returns false, and says why, when that does not work: all that
# Docker says with RUNTIME=docker, else its last line.
images() {
	echo "Pulling and building images; the first time takes minutes."
	log=$(mktemp)
	if compose pull --quiet --ignore-buildable --policy missing >"$log" 2>&1 && compose build --quiet >>"$log" 2>&1; then
		rm -f "$log"
		return
	fi
	if [ "${RUNTIME:-}" = docker ]; then
		cat "$log" >&2
	else
		echo "The images cannot be had: $(grep -v '^ *$' "$log" | tail -n 1)"
	fi
	rm -f "$log"
	return 1
}

# unlisted writes a line for each reader that nodes.sh has not put on the gateway's list.
unlisted() {
	listed=$(compose exec -T apisix cat /run/apisix/apisix.yaml </dev/null 2>/dev/null) || {
		echo "all of them (the gateway cannot be asked)"
		return
	}
	# shellcheck disable=SC2016 # the dollar signs are the template's
	compose ps --quiet reader | xargs docker inspect --format '{{slice .Name 1}} {{.State.Status}}
{{- with .State.Health}}/{{.Status}}{{end}}{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}' |
		while read -r name state addresses; do
			for address in $addresses; do
				case $listed in *"{host: $address,"*) continue 2 ;; esac
			done
			echo "$name ($state)"
		done
}

# await_rotation waits until the gateway uses every reader. It returns false, and says which reader
# is missing, when that takes more than 20 tries, a second apart.
await_rotation() {
	tries=20
	while missing=$(unlisted) && [ -n "$missing" ]; do
		tries=$((tries - 1))
		if [ "$tries" -eq 0 ]; then
			echo "error: the gateway does not list every reader: $(echo "$missing" | tr '\n' ' ')" >&2
			return 1
		fi
		sleep 1
	done
	sleep 2 # APISIX reads the list once a second
}

# check_readers N WHERE-IT-STANDS refuses a number that cannot run.
check_readers() {
	case $1 in
	'' | *[!0-9]* | ???*) ;;
	*) [ "$1" -lt 1 ] || [ "$1" -gt "$max_readers" ] || return 0 ;;
	esac
	echo "error: $2=$1: between 1 and $max_readers readers can be in rotation (READER_PORTS=$ports)" >&2
	exit 2
}

start() {
	check_readers "${READERS:-3}" READERS
	(umask 077 && mkdir -p "${RUN_DIR:-.run}")
	echo "$redis" >"${RUN_DIR:-.run}/docker-redis"
	if ! compose up --detach --wait --wait-timeout 180 --remove-orphans; then
		health || true
		echo "error: not everything became healthy; make logs shows why (a port that is in use: .env.example has the variables)" >&2
		exit 1
	fi
	await_rotation || exit 1
	address() { published "$@" | sed 's/^127.0.0.1:/localhost:/'; }
	cat <<-END

		The stack is up:
		  dashboards     http://$(address grafana 3000)
		  write          http://$(address writer 8080)/create
		  read           http://$(address apisix 9080)/post?id=...   (gateway, all readers)
		  read directly  http://$(address reader-direct 80)/post?id=...   (reader-direct)
		  metrics        http://$(address prometheus 9090)
		  posts are in   the volume of Redis; make stop keeps it, make clean deletes it
	END
	[ "$redis" = single ] || echo "  Redis          three servers and three Sentinels; make health says which one is the primary"
}

# health writes a line for each container and fails when one is missing, or not well.
health() {
	containers=$(compose ps --all --quiet)
	if [ -z "$containers" ]; then
		echo "error: the stack is not running: make start" >&2
		return 1
	fi
	# Service, name, state, health, address on this machine, then what each of the last checks said.
	# shellcheck disable=SC2016 # the dollar signs are the template's
	format='{{index .Config.Labels "com.docker.compose.service"}}
{{- "\t"}}{{slice .Name 1}}{{"\t"}}{{.State.Status}}{{"\t"}}{{with .State.Health}}{{.Status}}{{else}}no check{{end}}
{{- "\t"}}{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}
{{- with .State.Health}}{{range .Log}}{{"\t"}}{{printf "%q" .Output}}{{end}}{{end}}'
	# shellcheck disable=SC2086 # ids, to be split
	docker inspect --format "$format" $containers | sort -V |
		awk -F '\t' -v services="$(compose config --services | sort | tr '\n' ' ')" '
			{
				seen[$1] = 1
				well = $3 == "running" && $4 == "healthy"
				bad += !well
				state = well ? "healthy" : $3 == "running" ? $4 : $3
				said = NF > 5 ? $NF : ""
				gsub(/^"|(\\r|\\n)*"$/, "", said)
				sub(/^not ready: /, "", said)
				if (said != "" && $3 == "running" && (!well || said ~ /^(degraded|ready: |primary|Redis replica|OK )/)) state = state ": " said
				printf "%-34s %-21s %s\n", $2, $5, state
			}
			END {
				n = split(services, all, " ")
				for (i = 1; i <= n; i++) if (!(all[i] in seen)) { print all[i] ": no container"; bad++ }
				if (bad) { print "error: not everything is healthy" >"/dev/stderr"; exit 1 }
			}'
}

scale() {
	check_readers "$1" N
	if ! compose up --detach --wait --wait-timeout 120 --no-deps --no-recreate --scale "reader=$1" reader; then
		health || true
		exit 1
	fi
	await_rotation || exit 1
	echo "$1 readers are in rotation."
}

failover() {
	if [ "$redis" = single ]; then
		echo "error: there is nothing to fail over to: this is a single Redis; REDIS=sentinel starts three" >&2
		exit 1
	fi
	# The Sentinels have no port on this machine, so it runs in their network.
	compose --progress quiet run --rm --no-deps -T failover
}

command=$1
shift
case "$command" in
images | start | health | scale | failover) "$command" "$@" ;;
stats) exec sh local/stats.sh ;;
stop)
	compose down --remove-orphans
	echo "Stopped. The posts stay in the volume of Redis."
	;;
build) compose build ;;
logs)
	case ${1:-} in
	reader) set -- reader reader-direct ;;
	redis) [ "$redis" = single ] || set -- redis redis-2 redis-3 sentinel-1 sentinel-2 sentinel-3 ;;
	esac
	compose logs --follow --tail 50 "$@"
	;;
clean)
	compose down --volumes --remove-orphans
	# By the label that Compose gives to what it makes: what ran last may have been started with another
	# number of Redis servers, and reader and reader-direct share an image's name.
	mine="label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-heavy-read-api}"
	for kind in network volume; do
		docker "$kind" ls --quiet --filter "$mine" | xargs docker "$kind" rm >/dev/null 2>&1 || true
	done
	docker images --all --quiet --filter "$mine" | sort -u | xargs docker image rm --force >/dev/null 2>&1 || true
	rm -f "${RUN_DIR:-.run}/runtime" "${RUN_DIR:-.run}/docker-redis"
	echo "Deleted containers, networks, volumes and images of the stack."
	;;
*)
	echo "error: there is no $command for the stack in Docker" >&2
	exit 2
	;;
esac
