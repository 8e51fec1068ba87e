#!/usr/bin/env bash
# What the operator costs on a real cluster with 10, 100 and 1 000 StreamServices, and how soon a step of load has its workers: about
# fifteen minutes, as root. Arguments go to operator.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

have redis-server || { can_apt && apt_install redis-server; } || die "redis-server is needed and not found (on Debian and Ubuntu 'apt install redis-server')"
line=$(tests/setup/kubernetes.sh)
export "${line?}"
out=${CARGO_TARGET_DIR:-target}
# With the tests' selection: another one would build the dependencies a second time.
cargo build --workspace --all-targets --locked
cargo build --release --locked -p streamfleet-worker -p streamfleet-router -p streamfleet-operator -p streamfleet-cli
exec python3 bench/operator.py --cluster "$out/debug/streamfleet-cluster" --programs "$out/release" "$@"
