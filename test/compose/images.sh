# shellcheck shell=bash disable=SC2154
# Sourced by run.sh: images under the pinned names, made from what Debian's packages and Go's module
# proxy have, for machines that cannot pull any. docker-compose.yaml uses them unchanged.

# root DIRECTORY PROGRAM...: a root file system with these programs, their libraries and nothing else.
root() {
	local dir=$1 program library
	shift
	mkdir -p "$dir"/usr/{bin,sbin,lib,lib64} "$dir"/{etc,tmp,dev,proc,sys}
	for program in bin sbin lib lib64; do # as Debian has it
		ln -s "usr/$program" "$dir/$program"
	done
	chmod 1777 "$dir/tmp"
	printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
	printf 'root:x:0:0:root:/:/bin/sh\n' >"$dir/etc/passwd"
	for program in "$@"; do
		program=$(command -v "$program")
		cp -L --parents "$program" "$dir"
		# What ldd names by a path: the libraries and the loader. A static program has none.
		{ ldd "$program" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
			cp -L --parents "$library" "$dir"
		done
	done
}

# import DIRECTORY NAME CHANGE...: an image of that root file system.
import() {
	local dir=$1 name=$2 change options=()
	shift 2
	for change in "$@"; do
		options+=(--change "$change")
	done
	tar -C "$dir" --numeric-owner -c . | docker import "${options[@]}" - "$name" >/dev/null
	rm -rf "$dir"
}

# ran WHAT: notes which program stands in, for the end of the output.
ran() { echo "   $*" | tee -a "$work/ran"; }

# applets DIRECTORY COMMAND...: these commands of busybox, as Alpine has them.
applets() {
	local dir=$1 command
	shift
	cp "$(command -v busybox)" "$dir/usr/bin/busybox"
	for command in "$@"; do
		ln -s busybox "$dir/usr/bin/$command"
	done
}

golang_image() {
	local dir=$work/root goroot
	goroot=$(go env GOROOT)
	root "$dir"
	applets "$dir" sh mkdir cat env
	mkdir -p "$dir/go" "$dir/etc/ssl/certs" "$dir/usr/local/go"
	cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"
	tar -C "$goroot" --exclude testdata -c VERSION go.env bin pkg/include pkg/tool src lib | tar -C "$dir/usr/local/go" -x
	import "$dir" golang:1.26-alpine 'ENV PATH=/usr/local/go/bin:/usr/bin' 'ENV GOPATH=/go' 'ENV GOTOOLCHAIN=local' 'WORKDIR /go'
}

# Redis 8 of a newer Debian with the loader and the libraries of that, else the one that is installed.
redis_image() {
	local dir=$work/root unpacked loader program
	if unpacked=$(timeout 300 test/redis/fetch.sh forky redis 2>"$work/fetch.log"); then
		unpacked=${unpacked%/bin}/root
		loader=$(cd "$unpacked" && find . -name 'ld-linux*.so.*' -type f -print -quit)
		root "$dir"
		mkdir "$dir/redis"
		cp -a "$unpacked/." "$dir/redis"
		for program in redis-server redis-cli; do
			printf '#!/bin/sh\nexec /redis/%s --library-path /redis/%s /redis/usr/bin/%s "$@"\n' "$loader" "$(dirname "$loader")" "$program" \
				>"$dir/usr/bin/$program"
			chmod 755 "$dir/usr/bin/$program"
		done
		ran "Redis $("$unpacked/$loader" --library-path "$(dirname "$unpacked/$loader")" "$unpacked/usr/bin/redis-server" --version | cut -d ' ' -f 3), of Debian forky"
	else
		root "$dir" redis-server redis-cli
		ran "Redis $(redis-server --version | cut -d ' ' -f 3), the installed one: $(tail -n 1 "$work/fetch.log")"
	fi
	applets "$dir" sh sed sha256sum cut dirname cat mv tail sort xargs
	mkdir "$dir/data"
	chown 999:1000 "$dir/data"
	import "$dir" redis:8.2.3-alpine 'WORKDIR /data' 'VOLUME /data' 'CMD ["redis-server"]'
}

exporter_image() {
	local dir=$work/root
	root "$dir" prometheus-redis-exporter
	applets "$dir" wget
	ln -s usr/bin/prometheus-redis-exporter "$dir/redis_exporter"
	import "$dir" oliver006/redis_exporter:v1.80.1-alpine 'USER 59000:59000' 'ENTRYPOINT ["/redis_exporter"]'
}

# Prometheus of the pinned version, which needs no C and no pages, where it builds in five minutes; else the
# installed one.
prometheus_image() {
	local dir=$work/root
	mkdir "$work/prometheus"
	if (
		cd "$work/prometheus"
		# shellcheck disable=SC2016 # the inner shell expands it
		CGO_ENABLED=0 timeout 300 bash -euc '
			go mod init throwaway
			go get github.com/prometheus/prometheus/cmd/prometheus@v0.305.0
			go build -o prometheus -ldflags="-s -w -X github.com/prometheus/common/version.Version=3.5.0" \
				github.com/prometheus/prometheus/cmd/prometheus'
	) >"$work/prometheus.log" 2>&1; then
		root "$dir"
		mv "$work/prometheus/prometheus" "$dir/usr/bin/prometheus"
	else
		root "$dir" prometheus
	fi
	ran "$("$dir/usr/bin/prometheus" --version 2>&1 | head -n 1 | cut -d , -f 1)"
	applets "$dir" sh wget
	mkdir "$dir/prometheus"
	chown 65534:65534 "$dir/prometheus"
	import "$dir" prom/prometheus:v3.5.0 'USER nobody' 'WORKDIR /prometheus' 'VOLUME /prometheus' 'ENTRYPOINT ["/bin/prometheus"]' \
		'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]'
}

# The gateway of the local stack in the place of APISIX, beside the real nodes.sh with the shell and
# the tools of Debian.
apisix_image() {
	local dir=$work/root
	root "$dir" bash sh getent timeout sort mv ln cat date sleep dirname sed grep rm mkdir id head tail readlink
	mkdir -p "$dir/usr/local/apisix/conf" "$dir/usr/local/apisix/logs"
	echo "Compiling the stand-in gateway; the first time takes a minute or two."
	CGO_ENABLED=0 go build -o "$dir/usr/bin/local-gateway" ./local
	install -m 755 test/compose/apisix.sh "$dir/docker-entrypoint.sh"
	chown -R 636:636 "$dir/usr/local/apisix"
	import "$dir" apache/apisix:3.18.0-debian 'USER 636' 'WORKDIR /usr/local/apisix' \
		'ENTRYPOINT ["/docker-entrypoint.sh"]' 'CMD ["docker-start"]'
}

# stand_ins makes all of them.
stand_ins() {
	local image
	for image in golang redis exporter prometheus apisix; do
		"${image}_image"
	done
	docker images --format '   {{.Repository}}:{{.Tag}}  {{.Size}}'
}
