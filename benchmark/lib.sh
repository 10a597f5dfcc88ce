# shellcheck shell=bash
# What the benchmark scripts share: processes that end with the script, waiting, medians. Sourced;
# the tree's root is the current folder.
set -euo pipefail

curl() { command curl --noproxy '*' "$@"; } # all that is asked runs here

# shellcheck disable=SC2034 # for the script that sources this one
options() { # options ARGUMENT...: -r, -d and -n change rounds, seconds and posts
	local option OPTIND=1
	while getopts r:d:n: option; do
		case $option in
		r) rounds=$OPTARG ;;
		d) seconds=$OPTARG ;;
		n) posts=$OPTARG ;;
		*) exit 2 ;;
		esac
	done
}

need() { # need TOOL...: all of them are there
	local tool
	for tool in go redis-server wrk taskset curl awk "$@"; do
		command -v "$tool" >/dev/null || {
			echo "error: $tool is missing: apt-get install redis-server nginx wrk util-linux curl jq gawk" >&2
			exit 1
		}
	done
}

work=$(mktemp -d)
finish() {
	local running
	running=$(jobs -pr) # and none that has ended: its number may be another process's by now
	for pid in $running; do kill "$pid" 2>/dev/null || true; done
	for pid in $running; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap finish EXIT

start() { # start NAME CORES COMMAND...: in the background, with a log; its pid in $last
	local name=$1 cores=$2
	shift 2
	taskset -c "$cores" "$@" >"$work/$name.log" 2>&1 &
	last=$!
}

end() { # end PID: and wait for it
	kill "$1"
	wait "$1" || true
}

await() { # await URL: until it answers 200
	for _ in $(seq 3000); do
		curl -sf -o /dev/null "$1" && return
		sleep 0.02
	done
	echo "error: no answer from $1" >&2
	tail -n 5 "$work"/*.log >&2
	exit 1
}

clean() { # clean FILE: wrk's output tells of no answer but 2xx
	if grep -qE 'Non-2xx|Socket errors' "$1"; then
		printf 'error: some answers count for nothing:\n%s\n' "$(cat "$1")" >&2
		exit 1
	fi
}

median() { # median FILE [COLUMN]: the median, the least and the greatest number
	awk -v c="${2:-1}" '{ print $c }' "$1" | sort -g |
		awk '{ v[NR] = $1 } END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; print m, v[1], v[NR] }'
}

# upstream NAME PORT CORES: starts Redis and a writer on these cores, on this port and the one after it.
upstream() {
	start "$1-redis" "$3" redis-server --port "$2" --bind 127.0.0.1 --dir "$work" --save '' --dbfilename "$1.rdb" --appenddirname "$1" \
		--appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0
	start "$1-writer" "$3" env REDIS_ADDR="127.0.0.1:$2" PORT=$(($2 + 1)) "$work/writer"
	await "http://127.0.0.1:$(($2 + 1))/ready"
}

# prepare PORT POSTS CORES: builds the programs and starts Redis and a writer on these cores, with posts
# in them. The port and the two after it are Redis's, the writer's and the reader's.
prepare() {
	# shellcheck disable=SC2034 # for the script that sources this one
	writer=http://127.0.0.1:$(($1 + 1)) reader_port=$(($1 + 2)) reader=http://127.0.0.1:$(($1 + 2))
	go build -o "$work/writer" ./writer
	go build -o "$work/reader" ./reader
	go build -o "$work/load" ./benchmark/load
	export REDIS_ADDR=127.0.0.1:$1 HOST=127.0.0.1 LOG_LEVEL=warn
	upstream main "$1" "$3"
	echo "Importing $2 posts ..."
	"$work/load" posts -posts "$2" >"$work/posts.ndjson"
	curl -sS -X POST -H 'Content-Type: application/x-ndjson' -T "$work/posts.ndjson" "$writer/import" | tail -n 1 >"$work/import.json"
	grep -q "\"written\":$2," "$work/import.json" || {
		echo "error: the import ended with $(cat "$work/import.json")" >&2
		exit 1
	}
}

serve() { # serve CORES [VARIABLE=VALUE...]: a reader on these cores; its pid in $served
	local cores=$1
	shift
	start reader "$cores" env PORT="$reader_port" POD_ID=reader "$@" "$work/reader"
	# shellcheck disable=SC2034 # for the script that sources this one
	served=$last
	"$work/load" ready -reader "127.0.0.1:$reader_port" || {
		tail -n 5 "$work/reader.log" >&2
		exit 1
	}
}
