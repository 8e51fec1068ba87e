#!/usr/bin/env bash
# `make fuzz`: every target of fuzz/ for some seconds, with the stable compiler: libFuzzer needs coverage instrumentation,
# which stable offers, and no sanitizer: the code under test is safe Rust, where a mistake is a panic, a hang or memory without
# bound, all of which libFuzzer sees. Usage: fuzz.sh [SECONDS [TARGET...]]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/build-tools.sh"
cd "$root/fuzz"

seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//' | sort)
have c++ || { can_apt && apt_install g++; } || die "a C++ compiler is needed for libFuzzer and not found (g++ or clang++)"

# With an explicit target the flags reach the fuzzed code and not the build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-$root/fuzz/target}
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1)
say "building ${#targets[@]} targets: ${targets[*]}"
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Coverflow-checks ${coverage[*]}" \
    cargo build --release --bins --target "$host" --target-dir "$directory"

for target in "${targets[@]}"; do
    say "$target for $seconds s"
    # New inputs go to the cache, so that the next run goes on from there; the committed corpus is only read.
    found=$cache/fuzz-corpus/$target
    mkdir -p "$found" "artifacts/$target"
    committed=()
    [[ -d corpus/$target ]] && committed=("corpus/$target")
    "$directory/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="artifacts/$target/" "$found" "${committed[@]}"
done
say "no target found a mistake"
