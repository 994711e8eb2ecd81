#!/bin/sh
# Fails when `make generate` would change a file.
set -eu

cd "$(dirname "$0")/.."
GO=${GO:-go}

directives=$(git grep -l '^//go:generate ' -- '*.go' || true)
if [ -z "$directives" ]; then
	exit 0 # nothing is generated
fi
before=$(mktemp)
after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
sums() { git ls-files -z --cached --others --exclude-standard | xargs -0 cksum 2>/dev/null || true; }
sums >"$before"
$GO generate ./...
sums >"$after"
if ! diff "$before" "$after" >/dev/null; then
	echo "generated files were out of date; commit what make generate has written:" >&2
	diff "$before" "$after" | sed -n 's/^> [0-9]* [0-9]* /  /p' >&2
	exit 1
fi
