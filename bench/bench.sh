#!/usr/bin/env bash
# `make bench`: sessions a core, then conversations. Arguments go to run.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

"$directory/bin/python" bench/run.py --streamfleet "$programs/streamfleet" "$@"
exec bench/conversations.sh
