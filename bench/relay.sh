#!/usr/bin/env bash
# What a relay's thread costs, beside a bare forwarder and coturn: about five minutes. Arguments go to relay.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

(($(nproc) >= 2)) || die "two cores are needed: one for the forwarder, one for whoever sends and receives"
for program in turnserver:coturn ip:iproute2 ethtool:ethtool; do
    have "${program%:*}" || { can_apt && apt_install "${program#*:}"; } || die "${program%:*} is needed and not found (on Debian and Ubuntu 'apt install ${program#*:}')"
done
cargo build --release --locked -p bench-relay
exec python3 bench/relay.py --program "${CARGO_TARGET_DIR:-target}/release/bench-relay" "$@"
