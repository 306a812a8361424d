#!/bin/sh
# A program that needs a while until it is ready, and cleans up when asked to end.
ready=.perdure/server.ready
mkdir -p .perdure
rm -f "$ready"
trap 'rm -f "$ready"; echo "closing down"; exit 0' TERM INT
echo "loading"
sleep 2
: >"$ready"
echo "ready"
n=0
while :; do
    n=$((n + 1))
    echo "served request $n"
    [ $((n % 7)) -eq 0 ] && echo "request $n was slow" >&2
    sleep 1
done
