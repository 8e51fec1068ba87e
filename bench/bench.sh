#!/usr/bin/env bash
# `make bench`: builds the release program, installs the baselines into the cache, runs the comparison. Arguments go to run.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

have taskset || die "taskset is needed to pin the server and the client (util-linux)"
[[ -r /proc/self/stat ]] || die "the server's CPU time is read from /proc: Linux only"
(($(nproc) >= 2)) || die "two cores are needed: one for the server, one for the client"

requirements=$root/bench/servers/requirements.txt
directory=$cache/bench-$(key "$requirements")
install_baselines() { make_venv "$requirements" "$1"; }
if [[ ! -d $directory ]]; then
    venv_python >/dev/null || { can_apt && apt_install python3 python3-venv; }
    say "installing FastRTC and aiortc into $directory"
fi
once "$directory" install_baselines

say "building the release program"
cargo build --release --locked -p streamfleet-cli --bin streamfleet
exec "$directory/bin/python" bench/run.py --streamfleet "${CARGO_TARGET_DIR:-target}/release/streamfleet" "$@"
