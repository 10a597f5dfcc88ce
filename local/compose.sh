# shellcheck shell=sh
# Sourced in the repository's folder: compose runs Docker Compose v2, which is a plugin of docker or a
# program of its own. no_docker says in a few words why there is none that works, and nothing when
# there is.
#
# REDIS=single or sentinel says how many Redis servers there are; else COMPOSE_FILE does, then the last
# start. A stack that was started with Sentinels must not be started without by accident: another server
# than the one that is left may have the newest posts.
overlay=docker-compose.sentinel.yaml
case :${COMPOSE_FILE:-}: in
*:"$overlay":*) redis=sentinel ;;
*)
	redis=${REDIS:-$(cat "${RUN_DIR:-.run}/docker-redis" 2>/dev/null || echo single)}
	if [ "$redis" = sentinel ]; then
		files=docker-compose.yaml
		[ ! -f docker-compose.override.yaml ] || files=$files:docker-compose.override.yaml # Compose's default
		export COMPOSE_FILE="${COMPOSE_FILE:-$files}:$overlay"
	fi
	;;
esac
if docker compose version >/dev/null 2>&1; then
	compose() { docker compose "$@"; }
else
	compose() { docker-compose "$@"; }
fi

# published SERVICE PORT prints where a client on this machine reaches the port, host:port. Compose writes an
# IPv6 address without brackets, and one that stands for all addresses as it is.
published() {
	compose port "$@" 2>/dev/null | sed -n '1{
		s/^\[\(.*\)\]:/\1:/
		s/^0\.0\.0\.0:/127.0.0.1:/
		s/^:::/::1:/
		s/^\(.*:.*\):/[\1]:/
		p
	}'
}

no_docker() {
	if [ ! -f docker-compose.yaml ]; then
		echo "there is no docker-compose.yaml"
	elif ! command -v docker >/dev/null 2>&1; then
		echo "docker is not installed"
	elif ! said=$(docker version 2>&1 >/dev/null); then
		echo "docker's daemon does not answer ($(echo "$said" | tail -n 1))"
	else
		version=$(compose version --short 2>/dev/null)
		case ${version#v}. in
		.) echo "docker has no Compose (the docker-compose-plugin)" ;;
		1.* | 2.[0-9].* | 2.1[0-9].* | 2.2[0-3].*) echo "Docker Compose is version $version: 2.24 or newer is needed" ;;
		esac
	fi
}
