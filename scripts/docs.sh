#!/usr/bin/env bash
# Writes the generated pages and golden files again. Whatever is generated has
# a test that compares it with the committed file and takes -update; this runs
# the tests of all packages that have such a flag.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t packages < <(git ls-files -co --exclude-standard '*_test.go' |
	xargs -r grep -lE 'flag\.Bool(Var)?\(.*"update"' | grep -vE '^tools/' | xargs -rn1 dirname | sort -u)
for package in "${packages[@]}"; do
	go test -count=1 "./$package" -update
done
