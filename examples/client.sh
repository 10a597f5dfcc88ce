#!/usr/bin/env bash
# Write a post, read it back, and keep a copy of all posts up to date, with curl and jq.
#
# WRITER and READER are the addresses of the writer and of the gateway, or of a reader.
set -euo pipefail
writer=${WRITER:-http://localhost:8080} reader=${READER:-http://localhost:9080}
declare -A posts # the copy, by id

# get URL [OPTION...]: sets body and status. It repeats a request that is answered with "not now" (5xx), or not completely.
get() {
	while :; do
		body=$(curl -s -w '\n%{http_code}' "${@:2}" "$1") || body=$'\n500'
		status=${body##*$'\n'} body=${body%$'\n'*}
		[ "$status" -ge 500 ] || return 0
		sleep 1
	done
}

# copy_all: sets posts, and since, the position from which the changes lead on.
copy_all() {
	local id post after= # the id after which the page begins; empty for the first page
	posts=() since=
	while :; do
		get "$reader/posts" -G -d limit=1000 ${after:+--data-urlencode "after=$after" -d "since=$since"}
		case $status in
		200) ;;
		410) posts=() after='' since='' && continue ;; # Redis has begun another history: begin again
		*) echo "$body" >&2 && exit 1 ;;
		esac
		while IFS= read -r id && IFS= read -r post; do
			posts[$id]=$post
		done < <(jq -r '.posts[] | .id, tojson' <<<"$body")
		since=$(jq -r .since <<<"$body")
		[ "$(jq .after <<<"$body")" != null ] || return 0
		after=$(jq -r .after <<<"$body")
	done
}

# follow: waits for changes, applies them, and moves since on.
follow() {
	local line id
	get "$reader/changes?wait=20&since=$since"
	case $status in
	200) ;;
	410) since='' && return ;; # too old, or of another history
	*) echo "$body" >&2 && exit 1 ;;
	esac
	while read -r line; do
		id=$(jq -r '.post.id // empty' <<<"$line")
		case $(jq -r '.event // "next"' <<<"$line") in
		set) posts[$id]=$(jq -c .post <<<"$line") && echo "set $id" ;;
		delete) unset 'posts[$id]' && echo "delete $id" ;;
		next) since=$(jq -r .next <<<"$line") ;; # the last line
		esac
	done <<<"$body"
}

post='{"id":"from-curl","title":"Hello"}'
version=$(curl -sf -D - -o /dev/null "$writer/create" -H 'Content-Type: application/json' -d "$post" |
	tr -d '\r' | awk 'tolower($1) == "x-version:" {print $2}')
get "$reader/post?id=from-curl" -H "X-Min-Version: $version"
echo "read $(jq -r .title <<<"$body")"
since=
while :; do
	if [ -z "$since" ]; then
		copy_all
		echo "copied ${#posts[@]}"
	fi
	follow
done
