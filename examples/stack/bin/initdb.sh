#!/bin/sh
# Makes the database cluster, once.
set -eu
. bin/env.sh
if [ -e "$pg_data/PG_VERSION" ]; then
    echo "the cluster in $pg_data exists"
    exit 0
fi
mkdir -p "$pg_data"
chmod 700 "$pg_data"
[ "$(id -u)" -ne 0 ] || chown postgres: "$pg_data"
cd /
as_postgres "$PG_BIN/initdb" -D "$pg_data" -U postgres -A trust --no-sync
