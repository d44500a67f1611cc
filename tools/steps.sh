# steps.sh - one line on stderr for each step of a script, with the seconds it took. Sourced.
#
# A step's own output goes to $log and is shown when it fails. On a terminal the line counts the
# seconds and ends with the newest line of that output, so that nothing ever seems to hang. $shown
# is how many lines of a failure are shown (60).

started=$(date +%s.%N)

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	bold=$(printf '\033[1m') dim=$(printf '\033[2m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
	bold='' dim='' red='' plain=''
fi

# The seconds since a time; since the script began when there is none.
seconds() {
	awk -v a="${1:-$started}" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'
}

say() {
	printf '%s\n' "$@" >&2
}

heading() {
	printf '\n%s%s%s\n\n' "$bold" "$*" "$plain" >&2
}

die() {
	printf '%s%s%s\n' "$red" "$*" "$plain" >&2
	exit 1
}

# Rewrites the line of a running step twice a second, until it is ended.
tick() {
	while sleep 0.5; do
		printf '\r\033[K  %-46.46s %6s s  %s%.40s%s' "$1" "$(seconds "$2")" "$dim" \
			"$(tail -n 1 "$log" | tr -cd '[:print:]')" "$plain" >&2
	done
}

# step LABEL COMMAND...: runs it with its output in $log; its exit status. A failure is told.
step() {
	label=$1 began=$(date +%s.%N)
	shift
	: >"$log"
	ticker=
	if [ -n "$plain" ]; then
		tick "$label" "$began" &
		ticker=$!
	else
		printf '  %-46s ' "$label" >&2
	fi
	status=0
	"$@" >"$log" 2>&1 </dev/null || status=$?
	if [ -n "$ticker" ]; then
		kill "$ticker" 2>/dev/null || :
		wait "$ticker" 2>/dev/null || :
		printf '\r\033[K  %-46.46s ' "$label" >&2
	fi
	if [ "$status" -eq 0 ]; then
		printf '%6s s\n' "$(seconds "$began")" >&2
		return 0
	fi
	printf '%6s s  %sfailed (%s)%s\n' "$(seconds "$began")" "$red" "$status" "$plain" >&2
	grep -v '^\[[0-9]*/[0-9]*\] [CL]' "$log" | tail -n "${shown:-60}" | sed 's/^/    /' >&2
	return "$status"
}
