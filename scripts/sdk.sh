#!/usr/bin/env bash
# Tests the worker SDKs of other languages. They need nothing but their language;
# where that is missing the tests are skipped, and in continuous integration fail.
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
exit "$status"
