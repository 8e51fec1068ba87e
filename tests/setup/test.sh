#!/usr/bin/env bash
# The stages of `make test`, in order of how soon they find a mistake. Any failure stops with a non-zero status.
# Usage: test.sh [STAGE...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/build-tools.sh"
cd "$root"

all=(tools fmt clippy build unit deny charts browser calls waiting kubernetes)
stages=("$@")
(($#)) || stages=("${all[@]}")
deny_version=0.20.2

# Continuous integration clones afresh each time. Its target directory is in the cache, where the dependencies are built
# already. Cargo tells a workspace member's staleness by file times, which mean nothing between two clones: the files of this
# one are made new under the lock, so that every member is built again and none is mistaken for another clone's.
if [[ -n ${CI:-} && -z ${CARGO_TARGET_DIR:-} && ! -d target ]]; then
    compiler=$(rustc -vV | sha256sum | cut -c1-12)
    export CARGO_TARGET_DIR=$cache/target-$compiler
    mkdir -p "$CARGO_TARGET_DIR"
    exec 8>"$CARGO_TARGET_DIR.lock"
    flock 8
    # One directory per compiler: those of older ones only fill the disk.
    find "$cache" -maxdepth 1 -name 'target-*' -type d ! -path "$CARGO_TARGET_DIR" -exec rm -rf {} +
    find . -path ./.git -prune -o -type f -exec touch {} +
    # Incremental state is of no use to a build that starts from changed file times.
    export CARGO_INCREMENTAL=0
fi

# The whole workspace is selected in every stage: Cargo unifies features over what is selected, and another selection would
# build the dependencies a second time.
suite() { cargo test --workspace --locked --test "$1"; }

# Runs commands side by side, and says what each has said when all are over.
lanes() {
    local folder n status=0 lanes=() commands=("$@")
    folder=$(mktemp -d)
    for n in "${!commands[@]}"; do
        (eval "${commands[n]}") >"$folder/$n" 2>&1 &
        lanes+=($!)
    done
    for n in "${!lanes[@]}"; do
        wait "${lanes[n]}" || status=$?
        cat "$folder/$n"
    done
    rm -rf "$folder"
    return "$status"
}

stage_tools() { tools >/dev/null; }
stage_fmt() { cargo fmt --all --check; }
stage_clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }
stage_build() { cargo build --workspace --all-targets --locked; }
# Unit, property, golden and documentation tests, the store's rules on servers that they start, and the fuzzers' corpora replayed
# through the same functions: all but the suites, which have stages of their own.
stage_unit() {
    local own
    # A name selects the targets of all packages that have it: those that a suite shares are its stage's.
    own=$(cargo metadata --no-deps --format-version 1 --locked | python3 -c '
import json, sys
targets = [(p["name"], t) for p in json.load(sys.stdin)["packages"] for t in p["targets"] if t["test"]]
suites = {t["name"] for package, t in targets if package in ["streamfleet-tests", "streamfleet-kubernetes-tests"]}
for kind in ["test", "example"]:
    for name in sorted({t["name"] for _, t in targets if kind in t["kind"]} - suites):
        print(f"--{kind}", name)') || return
    # Both wait as often as they work.
    lanes 'cargo test --workspace --locked --lib --bins && cargo test --workspace --locked --doc' "cargo test --workspace --locked ${own//$'\n'/ }"
}
# Charts, examples, images: what is generated, rendered and packed, without a cluster.
stage_charts() { "$root/tests/setup/charts.sh"; }
stage_browser() { suite browser; }
stage_aiortc() { suite aiortc; }
stage_turn() { suite turn; }
stage_network() { suite network; }
stage_conversation() { suite conversation; }
stage_conformance() { suite conformance; }
stage_process() { suite process; }
stage_fleet() { suite fleet; }
# In network namespaces of its own, which it makes and removes: as root.
stage_relay() { suite relay; }
stage_hostile() { suite hostile; }
# Both wait for what calls take in real time: for conversations to come to their pauses, for relays to find out who has died.
stage_calls() { lanes stage_relay stage_conversation; }
# The fleet's suite mostly waits for leases to end, as the clusters' own tests do for nodes: others have the cores meanwhile.
stage_waiting() {
    clusters || return
    lanes stage_fleet 'stage_aiortc && stage_turn && stage_network && stage_conformance && stage_process && stage_hostile' stage_cluster
}
# Real clusters, made of namespaces and Kubernetes' own programs, which are built before: as root.
clusters() {
    local line
    line=$("$root/tests/setup/kubernetes.sh") || return
    export "${line?}"
}
# The clusters themselves, without the product.
stage_cluster() { clusters && suite cluster; }
# The product on them. These mostly wait, too, and the two lanes are as long as each other. What is built is not in their time, which
# is warned of and never fails: a slow machine is no mistake of the product.
kubernetes_seconds=600
stage_kubernetes() {
    local began took
    clusters || return
    cargo test --workspace --locked --no-run --test disruption --test install --test scaling || return
    began=$SECONDS
    lanes 'suite disruption' 'suite install && suite scaling' || return
    took=$((SECONDS - began))
    ((took <= kubernetes_seconds)) || printf 'warning: the suites on clusters took %d s, which is more than their %d s\n' "$took" "$kubernetes_seconds"
}
stage_deny() {
    install_deny() {
        # Unoptimised: it runs for a second, and the optimised build would take minutes longer than that.
        CARGO_TARGET_DIR=$1/build CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --root "$1" "cargo-deny@$deny_version" &&
            rm -rf "$1/build"
    }
    once "$cache/cargo-deny-$deny_version" install_deny &&
        "$cache/cargo-deny-$deny_version/bin/cargo-deny" --all-features --locked check licenses bans
}

# Puts the locations of the tools into the environment, once.
tools() {
    local lines
    lines=$("$root/tests/setup/tools.sh")
    printf '%s\n' "$lines"
    set -a
    source /dev/stdin <<<"$lines"
    set +a
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
summary=()
finish() {
    printf '\n'
    printf '%s\n' "${summary[@]}"
    grep '^warning: the suites on clusters' "$log" || true
    awk -v seconds="$SECONDS" '
        /^test result: / { passed += $4; failed += $6 }
        END { printf "tests: %d passed, %d failed, in %d s\n", passed, failed, seconds }' "$log"
}

for stage in "${stages[@]}"; do
    declare -F "stage_$stage" >/dev/null || die "no such stage: $stage (there are: ${all[*]}, and those that are run side by side)"
done
for stage in "${stages[@]}"; do
    say "$stage"
    started=$SECONDS
    # Not in a pipeline of the stage itself: `tools` sets variables that later stages need.
    status=0
    if [[ $stage == tools ]]; then
        stage_tools
    else
        ("stage_$stage") 2>&1 | sed -u 's/\x1b\[[0-9;]*m//g; s/\x1b(B//g' | tee -a "$log" || status=$?
    fi
    took=$((SECONDS - started))
    if ((status)); then
        summary+=("$(printf '%-8s FAILED after %4d s' "$stage" "$took")")
        finish
        exit "$status"
    fi
    summary+=("$(printf '%-8s ok %8d s' "$stage" "$took")")
    say "$stage: ok in $took s"
done
finish
