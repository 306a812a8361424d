#!/bin/sh
. bin/env.sh
exec "$PG_BIN/pg_isready" -q -h 127.0.0.1 -p "$PG_PORT"
