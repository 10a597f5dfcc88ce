# shellcheck shell=sh
# Sourced: compose runs Docker Compose v2, which is a plugin of docker or a program of its own.
# no_docker says in a few words why there is none that works, and nothing when there is.
if docker compose version >/dev/null 2>&1; then
	compose() { docker compose "$@"; }
else
	compose() { docker-compose "$@"; }
fi

no_docker() {
	if [ ! -f docker-compose.yaml ]; then
		echo "there is no docker-compose.yaml"
	elif ! command -v docker >/dev/null 2>&1; then
		echo "docker is not installed"
	elif ! docker info >/dev/null 2>&1; then
		echo "docker's daemon does not answer (docker info says why)"
	else
		case $(compose version --short 2>/dev/null) in
		'') echo "docker has no Compose (the docker-compose-plugin)" ;;
		1.* | v1.*) echo "docker-compose is version 1, which ended in 2023: version 2 is needed" ;;
		esac
	fi
}
