#!/usr/bin/env bash
# Installs Debian packages without starting the daemons that they bring: what
# needs a daemon runs its own.   apt-install.sh PACKAGE...
set -euo pipefail

policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
