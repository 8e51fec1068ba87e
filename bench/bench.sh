#!/usr/bin/env bash
# `make bench`: sessions a core, conversations, the router, the simulator, then the relay. Arguments go to run.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

"$directory/bin/python" bench/run.py --streamfleet "$programs/streamfleet" "$@"
bench/conversations.sh
bench/router.sh
bench/simulator.sh
exec bench/relay.sh
