#!/usr/bin/env bash
# Installs the other supervisors that `make bench` compares with, as far as they
# can be had here: Pebble and process-compose from their Go modules and PM2 from
# npm into bin/peers, where the harness looks first; supervisord, runit and s6
# from Debian's packages (as root). It may be run again, and says at its end what
# is missing. Nothing that it installs is started.
set -euo pipefail
cd "$(dirname "$0")/.."

# The versions that bench/RESULTS.md compares with.
pebble=v1.26.0
process_compose=v1.87.0
pm2=7.0.4

bin=$PWD/bin/peers
mkdir -p "$bin"

# from_module NAME MODULE VERSION PACKAGE builds in the module's own folder. `go
# install` would also want the list of all versions, which not every proxy has.
from_module() {
	local name=$1 module=$2 version=$3 package=$4 dir stamp
	stamp=$bin/.$name-$version
	if [[ -x $bin/$name && -e $stamp ]]; then
		return
	fi
	dir=$(cd / && go mod download -json "$module@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[[ -n $dir ]] || return
	cd "$dir"
	CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -ldflags "-s -w -X $module/src/config.Version=$version" -o "$bin/$name" "$package"
	touch "$stamp"
}

# from_npm keeps PM2 in a folder of its own.
from_npm() {
	local dir=$bin/npm
	if ! grep -qs "\"version\": \"$pm2\"" "$dir/node_modules/pm2/package.json"; then
		npm install --no-save --no-audit --no-fund --loglevel=error --prefix "$dir" "pm2@$pm2"
	fi
	ln -sfn npm/node_modules/pm2/bin/pm2 "$bin/pm2"
}

from_debian() {
	local missing=()
	command -v supervisord >/dev/null || missing+=(supervisor)
	command -v runsvdir >/dev/null || missing+=(runit)
	command -v s6-svscan >/dev/null || missing+=(s6)
	((${#missing[@]})) || return 0
	echo "peers: installing ${missing[*]}"
	scripts/apt-install.sh "${missing[@]}"
}

# Each in a shell of its own that ends at the first error: what cannot be had
# does not stop the others.
attempt() {
	set +e
	(set -e; "$@")
	set -e
}
attempt from_module pebble github.com/canonical/pebble "$pebble" ./cmd/pebble
attempt from_module process-compose github.com/f1bonacc1/process-compose "$process_compose" .
attempt from_npm
attempt from_debian

export PATH=$bin:$PATH
status="everything is there"
for command in pebble process-compose supervisord runsvdir s6-svscan pm2; do
	if ! command -v "$command" >/dev/null; then
		status="the rest is there"
		echo "peers: could not get $command; make bench leaves it out" >&2
	fi
done
echo "peers: $status"
