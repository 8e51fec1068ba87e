#!/usr/bin/env bash
# `make soak`: calls in rounds for a long time against the release program, and floods as long beside live calls through its
# relays (as root). Usage: soak.sh [SECONDS]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/build-tools.sh"
cd "$root"
cargo build --release --locked -p streamfleet-cli --bin streamfleet
export STREAMFLEET_SOAK_SECONDS=${1:-600} STREAMFLEET_BIN=${CARGO_TARGET_DIR:-$root/target}/release/streamfleet
cargo test --locked -p streamfleet-tests --test soak -- --ignored --nocapture
have ip || apt_install iproute2
cargo test --locked -p streamfleet-tests --test relay -- --ignored --nocapture
