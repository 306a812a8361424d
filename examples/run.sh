#!/bin/sh
# Runs the example that this machine has the programs for: the stack, else hello.
# usage: examples/run.sh [PERDURE]   (default: perdure in the repository's root, or in PATH)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
perdure=${1:-}
if [ -z "$perdure" ]; then
    for candidate in "$here/../bin/perdure" "$here/../perdure" "$(command -v perdure || true)"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            perdure=$candidate
            break
        fi
    done
fi
[ -n "$perdure" ] || { echo "cannot find the program perdure; build it with: make build" >&2; exit 1; }
case $perdure in
*/*) perdure=$(cd "$(dirname "$perdure")" && pwd)/$(basename "$perdure") ;;
esac

missing=
for program in redis-server redis-cli nginx python3 psql; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
ls -d /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null 2>&1 || missing="$missing postgres"
if [ "$(id -u)" -eq 0 ] && ! command -v setpriv >/dev/null 2>&1; then missing="$missing setpriv"; fi

if [ -z "$missing" ]; then
    echo "Starting examples/stack: open http://127.0.0.1:15400/ when it is up; Ctrl-C stops everything."
    cd "$here/stack"
else
    echo "Starting examples/hello. For the larger example these are missing:$missing"
    echo "(Debian: apt install postgresql redis-server nginx-light python3)"
    cd "$here/hello"
fi
exec "$perdure" up
