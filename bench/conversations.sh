#!/usr/bin/env bash
# Voice activity, pauses and WebSockets beside FastRTC and WebRTC's detector: about ten minutes. Arguments go to
# conversations.py; `--turns 4 --sessions 5 --seconds 3 --out /tmp/x.md` is a try.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

# The voices of the table of voice activity.
have espeak-ng || { can_apt && apt_install espeak-ng; } || die "espeak-ng is needed and not found (on Debian and Ubuntu 'apt install espeak-ng')"
cargo build --release --locked -p streamfleet-pause --example compare
exec "$directory/bin/python" bench/conversations.py --programs "$programs" "$@"
