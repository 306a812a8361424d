#!/usr/bin/env bash
# Builds everything for every system that we support, without cgo. The vet of
# the systems that this machine is not also type-checks their tests.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
for target in linux/amd64 linux/arm64 darwin/arm64 windows/amd64; do
	export GOOS=${target%/*} GOARCH=${target#*/}
	start=$SECONDS
	go build ./...
	if [[ $GOOS != linux ]]; then
		go vet ./...
	fi
	printf '%-14s builds (%ds)\n' "$target" $((SECONDS - start))
done
