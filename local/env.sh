# shellcheck shell=sh
# Sourced in the folder that holds .env: exports its settings that the environment does not have, so
# that one file serves both ways to run the stack. What Docker Compose would read in another way
# is refused.
if [ -f .env ]; then
	cr=$(printf '\r')
	while IFS='=' read -r name value || [ -n "$name" ]; do
		case $name in
		'' | '#'*) continue ;;
		[0-9]* | *[!A-Za-z0-9_]*) bad=$name ;;
		*) bad= ;;
		esac
		case $value in
		*[\"\'\$$cr]* | *' #'* | ' '*) bad=$name ;;
		esac
		if [ -n "$bad" ]; then
			echo "error: .env: $bad: write NAME=value, without export, quotes, \$, spaces around the = or a comment behind it, in lines that end as on Unix" >&2
			exit 2
		fi
		eval "[ -n \"\${$name+set}\" ]" || export "$name=$value"
	done <.env
fi
