#!/usr/bin/env bash
# Fuzzes every target for the time that is given, such as 5s (default) or 10m.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-5s}
git ls-files '*_test.go' | grep -vE '^tools/' | xargs -r grep -oE '^func Fuzz[A-Za-z0-9_]*' /dev/null |
	sort -u | while IFS=: read -r file name; do
	name=${name#func }
	echo "$name of ./$(dirname "$file"), $time"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
done
