#!/usr/bin/env bash
# Fails when a Go file under version control is not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files '*.go')
list=$(gofmt -l "${files[@]}")
if [[ -n "$list" ]]; then
	printf 'not formatted (run gofmt -w on them):\n%s\n' "$list" >&2
	exit 1
fi
