#!/usr/bin/env bash
# Fuzzes with libFuzzer: each target for so many seconds, with its corpus and what earlier runs found. Needs a C++ compiler.
#
#   tests/fuzz/libfuzzer/run.sh                      every target for a minute
#   tests/fuzz/libfuzzer/run.sh 600 tiers_file       one target for ten minutes
#
# What it finds lies below target/fuzz: `work/<target>` is what adds coverage, `found/<target>` breaks the target.
set -euo pipefail
cd "$(dirname "$0")"

seconds="${1:-60}"
shift || true
corpus="$PWD/../corpus"
if [[ $# -gt 0 ]]; then targets=("$@"); else targets=($(ls "$corpus")); fi
for target in "${targets[@]}"; do
    [[ -d "$corpus/$target" ]] || { echo "no target is called $target; there are $(ls "$corpus" | xargs)" >&2; exit 64; }
done
out="${CARGO_TARGET_DIR:-$PWD/../../../target}/fuzz"

RUSTC_WRAPPER="$PWD/instrument.sh" cargo build --release --locked --target-dir "$out"

broken=0
echo "| target | inputs run | edges by the corpus | edges now | inputs that add |"
echo "| --- | ---: | ---: | ---: | ---: |"
for target in "${targets[@]}"; do
    work="$out/work/$target" found="$out/found/$target" log="$out/$target.log"
    mkdir -p "$work" "$found"
    export FUZZ_TARGET="$target"
    # The committed corpus alone, for comparison.
    if ! "$out/release/farebox-libfuzzer" -runs=0 "$corpus/$target" >"$log" 2>&1; then
        broken=1
        echo "$target is broken by its corpus, see $log" >&2
        continue
    fi
    before=$(sed -n 's/.*INITED cov: \([0-9]*\).*/\1/p' "$log")
    if ! "$out/release/farebox-libfuzzer" -max_total_time="$seconds" -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$found/" "$work" "$corpus/$target" >"$log" 2>&1; then
        broken=1
        echo "$target is broken: $(ls "$found" | tail -1), see $log" >&2
    fi
    after=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "| \`$target\` | ${runs:-?} | ${before:-?} | ${after:-?} | $(ls "$work" | wc -l) |"
done
exit "$broken"
