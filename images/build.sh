#!/usr/bin/env bash
# Builds the images of the release programs into target/images, each with its list of contents, and fails where one is larger than it may be,
# unpacked: 40 MB.
# Usage: build.sh [REGISTRY] (ghcr.io/streamfleet)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tests/setup/build-tools.sh"
cd "$root"

registry=${1:-ghcr.io/streamfleet}
out=${CARGO_TARGET_DIR:-target}
version=$(cargo metadata --no-deps --locked --format-version 1 | python3 -c '
import json, sys
print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "streamfleet-cli"))')

say "building the release programs"
cargo build --release --locked -p streamfleet-worker -p streamfleet-router -p streamfleet-operator -p streamfleet-cli
for program in streamfleet-worker streamfleet-router streamfleet-operator streamfleet; do
    package=${program/%streamfleet/streamfleet-cli}
    list=$out/images/$program.cdx.json
    python3 images/sbom.py "$package" "$out/release/$program" "$list"
    python3 images/pack.py image "$out/images/$program.tar" "$registry/$program:$version" "$out/release/$program" --strip --sbom "$list" --most 40000000
done
