#!/usr/bin/env bash
# What a router costs, beside a proxy that does nothing else: about five minutes. Arguments go to router.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

have redis-server || { can_apt && apt_install redis-server; } || die "redis-server is needed and not found (on Debian and Ubuntu 'apt install redis-server')"
cargo build --release --locked -p streamfleet-router -p bench-router --bins
exec "$directory/bin/python" bench/router.py --programs "$programs" "$@"
