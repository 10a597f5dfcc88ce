# shellcheck shell=sh
# Sourced in the folder that holds .env: exports its settings that the environment does not have, as
# Docker Compose reads them, so that one file serves both ways to run the stack.
if [ -f .env ]; then
	while IFS='=' read -r name value || [ -n "$name" ]; do
		case $name in
		'' | [0-9]* | *[!A-Za-z0-9_]*) continue ;; # a comment, or no name
		esac
		eval "[ -n \"\${$name+set}\" ]" || export "$name=$value"
	done <.env
fi
