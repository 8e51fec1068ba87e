#!/usr/bin/env bash
# How long the simulator takes for a day of a million sessions on more than a thousand pods: a minute. Arguments go to simulator.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

cargo build --release --locked -p streamfleet-cli
exec python3 bench/simulator.py --streamfleet "${CARGO_TARGET_DIR:-target}/release/streamfleet" "$@"
