#!/usr/bin/env bash
# Unpacks the Redis or Valkey server of another Debian suite into a folder of its own and prints a
# directory to put in front of PATH: redis-server and redis-cli there run those programs with the
# loader and the libraries of their suite. Nothing is installed, and no root is needed. What was
# unpacked before is used again; delete the folder for a newer version.
#
#	test/redis/fetch.sh SUITE redis|valkey        such as: forky valkey
set -euo pipefail
suite=$1 product=$2

target=${XDG_CACHE_HOME:-$HOME/.cache}/heavy-read-api/redis/$product-$suite
if [ -x "$target/bin/redis-server" ]; then
	echo "$target/bin"
	exit
fi
fail() {
	echo "$*" >&2
	exit 1
}
for tool in apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || fail "there is no $tool: this needs Debian or what comes from it"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/root" "$work/bin"

# The mirror that this machine uses; its own lists of packages stay as they are.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(COMPONENT) $(REPO_URI)' 'Identifier: Packages' | awk '$1 == "main" && !/security/ { print $2; exit }')
[ -n "$mirror" ] || fail "apt knows no mirror"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
: >"$work/status"
apt=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
	-o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
	-o APT::Update::Error-Mode=any -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
timeout 120 apt-get "${apt[@]}" update >"$work/log" 2>&1 || fail "the packages of $suite cannot be listed: $(tail -n 1 "$work/log")"

# The server, its tools, and the libraries that they need, directly or not.
packages=("$product-server" "$product-tools") count=0
while [ "$count" -ne ${#packages[@]} ]; do
	count=${#packages[@]}
	mapfile -t packages < <({
		printf '%s\n' "${packages[@]}"
		apt-cache "${apt[@]}" depends --important "${packages[@]}" | sed -nE 's/^ +Depends: ((lib|zlib)[^ ]*)$/\1/p'
	} | sort -u)
done
cd "$work/packages"
timeout 120 apt-get "${apt[@]}" download "${packages[@]}" >"$work/log" 2>&1 || fail "the packages cannot be had: $(tail -n 1 "$work/log")"
for package in *.deb; do
	dpkg-deb -x "$package" "$work/root"
done

loader=$(cd "$work/root" && find . -name 'ld-linux*.so.*' -type f -print -quit)
for program in server cli; do
	[ -x "$work/root/usr/bin/$product-$program" ] || fail "$product of $suite has no usr/bin/$product-$program"
	cat >"$work/bin/redis-$program" <<-WRAPPER
		#!/bin/sh
		root='$target/root'
		exec "\$root/$loader" --library-path "\$root/$(dirname "$loader")" "\$root/usr/bin/$product-$program" "\$@"
	WRAPPER
	chmod +x "$work/bin/redis-$program"
done
rm -rf "$target"
mkdir -p "$target"
mv "$work/root" "$work/bin" "$target"
"$target/bin/redis-server" --version >"$work/log" 2>&1 || { rm -rf "$target"; fail "it does not run here: $(tail -n 1 "$work/log")"; }
echo "$target/bin"
