#!/bin/sh
# Writes a line for each reader in Docker: what it holds and does, from two looks at its metrics.
# Run by docker.sh, in the repository's folder.
set -eu
. local/compose.sh

seconds=2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Name and address of each: reader-1 127.0.0.1:8082
# shellcheck disable=SC2016 # the dollar signs are the template's
compose ps --quiet reader reader-direct | xargs docker inspect --format \
	'{{slice .Name 1}}{{range .NetworkSettings.Ports}}{{range .}} {{.HostIp}}:{{.HostPort}}{{end}}{{end}}' |
	sort -V >"$dir/readers"
if [ ! -s "$dir/readers" ]; then
	echo "error: no reader runs: make start" >&2
	exit 1
fi
gateway=$(published apisix 9091)
writer=$(published writer 9092)

# look N asks everybody at the same time.
look() {
	while read -r name address; do
		curl -sS --noproxy '*' --max-time 2 "http://$address/metrics" >"$dir/$name.$1" &
	done <"$dir/readers"
	curl -sS --noproxy '*' --max-time 2 "http://$gateway/apisix/prometheus/metrics" >"$dir/gateway.$1" &
	curl -sS --noproxy '*' --max-time 2 "http://$writer/metrics" >"$dir/writer.$1" &
	wait
}

look 1
sleep "$seconds"
look 2

row='%-34s %-9s %9s %9s %16s %10s %10s %10s %10s %6s\n'
# shellcheck disable=SC2059 # the format is the same for all lines
printf "$row" READER STATE READS/S P99 'PROPAGATION P99' POSTS CACHE MEMORY VERSION LAG
while read -r name _; do
	awk -v name="$name" -v seconds="$seconds" -v row="$row" -f local/stats.awk "$dir/$name.1" "$dir/$name.2"
done <"$dir/readers"
awk -v seconds="$seconds" -v role=summary -f local/stats.awk "$dir/gateway.1" "$dir/writer.1" "$dir/gateway.2" "$dir/writer.2"
echo "rates and quantiles are of $seconds seconds"
