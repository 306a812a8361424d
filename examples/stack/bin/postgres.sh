#!/bin/sh
set -eu
. bin/env.sh
cd /
as_postgres "$PG_BIN/postgres" -D "$pg_data" -p "$PG_PORT" -h 127.0.0.1 -k "$pg_data"
