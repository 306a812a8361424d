#!/bin/sh
set -eu
. bin/env.sh
mkdir -p "$data/redis"
exec redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$data/redis" --save 60 1
