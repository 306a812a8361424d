#!/usr/bin/env bash
# Finds what the tests and examples need besides Go, or installs it from
# Debian's packages when this runs as root where apt is. Quick when all is there.
# With --race also a C compiler, which the race detector needs.
set -euo pipefail
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1 || [[ -x /usr/sbin/$1 ]]; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

missing=()
have_postgres || missing+=(postgresql)
have redis-server || missing+=(redis-server)
have nginx || missing+=(nginx-light)
have python3 || missing+=(python3)
have node || missing+=(nodejs)
have curl || missing+=(curl)
if [[ ${1:-} == --race ]] && ! have gcc; then
	missing+=(gcc libc6-dev)
fi

if ((${#missing[@]} == 0)); then
	echo "setup: everything is there"
	exit 0
fi
if ! have apt-get || ((EUID != 0)); then
	echo "setup: missing: ${missing[*]}" >&2
	echo "setup: install them (on Debian: sudo apt-get install ${missing[*]}); tests that need them fail or say that they are skipped" >&2
	exit 0
fi

echo "setup: installing ${missing[*]}"
scripts/apt-install.sh "${missing[@]}"
echo "setup: done"
