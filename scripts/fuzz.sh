#!/usr/bin/env bash
# Fuzzes every target for the time that is given, such as 5s (default) or 10m.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-5s}
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# fuzz runs one target. What is new is made small in 100 runs at the most: in the
# minute that is the default, a target that writes files would do nothing else.
# Until Go 1.27 the fuzzer may take the end of its own time for a failure
# (go.dev/issue/75804): then it says this alone and names no input.
fuzz() {
	if go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 100x "$2" </dev/null 2>&1 | tee "$said"; then
		return 0
	fi
	if grep -qE '^ +context deadline exceeded$' "$said" && ! grep -qE 'Failing input|panic|terminated' "$said"; then
		echo "$1: no failure: the fuzzer has met the end of its own time"
		return 0
	fi
	return 1
}

git ls-files '*_test.go' | grep -vE '^tools/' | xargs -r grep -oE '^func Fuzz[A-Za-z0-9_]*' /dev/null |
	sort -u | while IFS=: read -r file name; do
	name=${name#func }
	echo "$name of ./$(dirname "$file"), $time"
	fuzz "$name" "./$(dirname "$file")"
done
