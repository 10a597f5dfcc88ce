#!/usr/bin/env bash
# Compares what a read costs: the reader's fast lane, its net/http lane and nginx that returns the
# same bytes. Server on one core, wrk on the other, in turn, several rounds; prints medians, their
# spread and ratios. CPU per request is what /proc/<pid>/stat counts, kernel included.
#
#   benchmark/lanes.sh [-r ROUNDS] [-d SECONDS] [-n POSTS]
#
# Needs two cores, Go, redis-server, nginx, wrk, taskset, curl and awk. Everything listens on
# 127.0.0.1 and is stopped at the end. Any answer that is not 2xx fails the run.
cd "$(dirname "$0")/.."
# shellcheck source=benchmark/lib.sh
. benchmark/lib.sh

rounds=5 seconds=4 posts=1000000
options "$@"
need nginx
nginx_port=21382
# Redis, the writer and what is sent share a core, so that the server has the other one to itself.
prepare 21379 "$posts" 1
# Updates that the reader does not follow: they take as much from wrk, and nothing from the reader.
upstream other 21383 1
serve 0
hot="$reader/post?id=post-7"
body=$(curl -sSf "$hot")
cat >"$work/nginx.conf" <<CONF
worker_processes 1; daemon off; pid $work/nginx.pid; error_log $work/nginx.error;
events { worker_connections 4096; }
http {
	access_log off; keepalive_requests 1000000000; client_body_temp_path $work; proxy_temp_path $work;
	fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
	server {
		listen 127.0.0.1:$nginx_port;
		location /post {
			default_type application/json; add_header Cache-Control no-cache; add_header X-Served-By reader;
			add_header ETag '"0123456789abcdef0123456789abcdef"'; add_header X-Version 0123456789abcdef-1000000;
			return 200 '$body';
		}
	}
}
CONF
start nginx 0 nginx -c "$work/nginx.conf"
await "http://127.0.0.1:$nginx_port/post?id=post-7"
nginx=$(pgrep -P "$last")

# What wrk sends. Each script formats its requests once and then only hands them out.
cat >"$work/pipeline.lua" <<'LUA'
init = function()
	local batch = {}
	for i = 1, 16 do batch[i] = wrk.format() end
	batch = table.concat(batch)
	request = function() return batch end
end
LUA
"$work/load" ids -posts "$posts" >"$work/ids"
cat >"$work/zipf.lua" <<LUA
init = function()
	local depth, batches, batch = tonumber(os.getenv("DEPTH")), {}, {}
	for id in io.lines("$work/ids") do
		batch[#batch + 1] = wrk.format("GET", "/post?id=" .. id)
		if #batch == depth then
			batches[#batches + 1] = table.concat(batch)
			batch = {}
		end
	end
	local next = 0
	request = function()
		next = next % #batches + 1
		return batches[next]
	end
end
LUA

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
hertz=$(getconf CLK_TCK)
measure() { # measure NAME PID URL WRK-ARGUMENTS...: appends "requests/s CPU-us" to the name's results
	local name=$1 pid=$2 url=$3 before after
	shift 3
	before=$(ticks "$pid")
	taskset -c 1 wrk -t 1 -c 64 -d "${seconds}s" "$@" "$url" >"$work/wrk.log"
	after=$(ticks "$pid")
	clean "$work/wrk.log"
	awk -v cpu=$((after - before)) -v hertz="$hertz" '/requests in/ { n = $1 } /Requests\/sec/ { rate = $2 } END { print rate, cpu / hertz * 1e6 / n }' \
		"$work/wrk.log" >>"$work/$name.result"
}
updates() { # updates WRITER: in the background
	taskset -c 1 "$work/load" updates -writer "$1" -posts "$posts" -rate 500 -duration "$((seconds + 1))s" >"$work/updates.log" &
}

for round in $(seq "$rounds"); do
	echo "Round $round of $rounds ..."
	measure nginx "$nginx" "http://127.0.0.1:$nginx_port/post?id=post-7"
	measure std "$served" "$hot" -H 'Expect: 100-continue' # means nothing without a body, and is not for the fast lane
	measure fast "$served" "$hot"
	measure nginx-16 "$nginx" "http://127.0.0.1:$nginx_port/post?id=post-7" -s "$work/pipeline.lua"
	measure std-16 "$served" "$hot" -H 'Expect: 100-continue' -s "$work/pipeline.lua"
	measure fast-16 "$served" "$hot" -s "$work/pipeline.lua"
	DEPTH=1 measure zipf "$served" "$hot" -s "$work/zipf.lua"
	DEPTH=16 measure zipf-16 "$served" "$hot" -s "$work/zipf.lua"
	updates "$writer"
	measure updated "$served" "$hot"
	wait $!
	updates http://127.0.0.1:21384
	measure elsewhere "$served" "$hot"
	wait $!
done
hwm=$(awk '/VmHWM/ { print $2 }' "/proc/$served/status")
end "$served"
serve 0,1 # and wrk has to share one of them
for round in $(seq "$rounds"); do
	measure both "$served" "$hot"
	measure both-16 "$served" "$hot" -s "$work/pipeline.lua"
done

echo
echo "$rounds rounds of $seconds s, 64 connections, server on one core, wrk on the other; $posts posts, $hwm kB resident at most"
printf '%-10s %28s   %24s\n' '' 'requests/s' 'CPU us a request'
for name in nginx std fast nginx-16 std-16 fast-16 zipf zipf-16 updated elsewhere both both-16; do
	read -r rate low high < <(median "$work/$name.result" 1)
	read -r cpu least most < <(median "$work/$name.result" 2)
	printf '%-10s %10.0f (%8.0f-%8.0f)   %6.2f (%6.2f-%6.2f)\n' "$name" "$rate" "$low" "$high" "$cpu" "$least" "$most"
done
ratio() { # ratio COLUMN A B TEXT WANTED
	awk -v a="$(median "$work/$2.result" "$1")" -v b="$(median "$work/$3.result" "$1")" -v text="$4" -v wanted="$5" 'BEGIN { split(a, x); split(b, y); printf "%-56s %5.2f%s\n", text, x[1] / y[1], wanted == "" ? "" : "   wanted: " wanted }'
}
echo
ratio 2 fast nginx 'CPU a request, fast lane / nginx' 'at most 1.05'
ratio 2 fast std 'CPU a request, fast lane / net/http lane' 'at most 0.55'
ratio 1 fast-16 nginx-16 'requests/s with 16 in flight, fast lane / nginx' 'at least 8, or 1,000,000/s'
ratio 1 zipf fast 'requests/s, Zipf(0.99) ids / one id' 'at least 0.75'
ratio 1 zipf-16 fast-16 'the same with 16 in flight' 'at least 0.75'
ratio 1 updated elsewhere 'requests/s, with 500 updates/s / as many elsewhere' 'at least 0.9'
ratio 1 updated fast 'requests/s, with 500 updates/s / wrk alone on its core' ''
ratio 2 both fast 'CPU a request, both cores / one core' 'at most 1.15'
