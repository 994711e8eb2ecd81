#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh TIME [NAME]
set -eu

cd "$(dirname "$0")/.."
time=${1:-5s}
only=${2-}
GO=${GO:-go}

out=$(mktemp)
trap 'rm -f "$out"' EXIT

# fuzz DIRECTORY TARGET
fuzz() {
	$GO test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" >"$out" 2>&1
}

count=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	dir=$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		[ -z "$only" ] || [ "$target" = "$only" ] || continue
		count=$((count + 1))
		printf '%s %s: ' "$dir" "$target"
		# On a busy machine go test takes the end of the time for a failure of
		# the target now and then (golang/go#48591).
		if fuzz "$dir" "$target" ||
			{ grep -q 'context deadline exceeded' "$out" && ! grep -q 'Failing input' "$out" && fuzz "$dir" "$target"; }; then
			sed -n 's/^fuzz: elapsed: [^,]*, \(execs: [0-9]*\).*/\1/p' "$out" | tail -n 1
		else
			echo failed
			cat "$out"
			exit 1
		fi
	done
done
if [ "$count" -eq 0 ]; then
	echo "no fuzz target${only:+ named $only}" >&2
	exit 1
fi
