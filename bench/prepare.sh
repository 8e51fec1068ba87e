# shellcheck shell=bash
# Sourced by the scripts beside it: what the machine must have, the baselines in the cache, the release programs.
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

have taskset || die "taskset is needed to pin the server and the client (util-linux)"
[[ -r /proc/self/stat ]] || die "the server's CPU time is read from /proc: Linux only"
(($(nproc) >= 2)) || die "two cores are needed: one for the server, one for the client"

requirements=$root/bench/servers/requirements.txt
directory=$cache/bench-$(key "$requirements")
install_baselines() { make_venv "$requirements" "$1"; }
if [[ ! -d $directory ]]; then
    # One of the baselines is C, and comes as source.
    ! can_apt || apt_install python3 python3-venv python3-dev gcc libc6-dev
    say "installing FastRTC, aiortc and webrtcvad into $directory"
fi
once "$directory" install_baselines

programs=${CARGO_TARGET_DIR:-target}/release
say "building the release programs"
cargo build --release --locked -p streamfleet-cli -p bench-worker --bins
