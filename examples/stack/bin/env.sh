# Sourced by the other scripts: where the programs and the data are.
data=$PWD/.perdure/data
PG_BIN=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$PG_BIN" ] || PG_BIN=$(dirname "$(command -v postgres || echo /none/postgres)")
# PostgreSQL refuses to run as root. Its data then lies outside .perdure, which
# only root may enter.
if [ "$(id -u)" -eq 0 ]; then
    pg_data=${STACK_PG_DATA:-/var/tmp/perdure-stack-postgres}
    as_postgres() { exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }
else
    pg_data=$data/postgres
    as_postgres() { exec "$@"; }
fi
