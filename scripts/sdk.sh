#!/usr/bin/env bash
# Tests the worker SDKs of other languages. They need nothing but their language,
# and Go for Perdure's end of the protocol; where the language is missing the
# tests are skipped, and in continuous integration fail.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0

missing() {
	echo "sdk: $1 is missing: run scripts/setup.sh" >&2
	[[ -z ${CI:-} ]] || status=1
}

if command -v python3 >/dev/null; then
	python3 -m unittest discover -s sdk/python/tests || status=1
else
	missing python3
fi

# Debian 12 has Node 18, which is too old for the SDK and so for its tests.
node_major() { node --version | sed 's/^v\([0-9]*\).*/\1/'; }
if ! command -v node >/dev/null; then
	missing node
elif (($(node_major) < 20)); then
	echo "sdk: node $(node --version) is older than 20; the TypeScript SDK is not tested"
else
	mkdir -p bin
	go build -o bin/sessiontest ./sdk/sessiontest
	PERDURE_SESSIONTEST=$PWD/bin/sessiontest node --test sdk/typescript/test/*.test.js || status=1
fi
# The types are checked where there is a compiler; nothing is fetched for that.
if command -v tsc >/dev/null; then
	tsc -p sdk/typescript/test/tsconfig.json || status=1
else
	echo "sdk: there is no tsc here; the types of the TypeScript SDK are not checked"
fi
exit "$status"
