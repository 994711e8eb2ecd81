#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh TIME [NAME]
set -eu

cd "$(dirname "$0")/.."
time=${1:-5s}
only=${2-}
GO=${GO:-go}

count=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		[ -z "$only" ] || [ "$target" = "$only" ] || continue
		echo "$(dirname "$file") $target"
		$GO test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$(dirname "$file")"
		count=$((count + 1))
	done
done
if [ "$count" -eq 0 ]; then
	echo "no fuzz target${only:+ named $only}" >&2
	exit 1
fi
