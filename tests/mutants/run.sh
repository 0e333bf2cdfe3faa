#!/usr/bin/env bash
# Changes one operator or value at a time and sees whether a test notices. Works on a copy of the tree.
#
#   tests/mutants/run.sh rules      what decides, counts and prices, against its own tests: an hour on one core
#   tests/mutants/run.sh report     what folds, seals and reports, against the simulation, then the scenarios
#
# Further arguments go to cargo-mutants: `-F core/src/money.rs` for one file, `--list`, `--iterate`.
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=27.1.0
what="${1:-rules}"
shift || true
target="${CARGO_TARGET_DIR:-$PWD/target}"
export PATH="$target/security/bin:$PATH"
cargo mutants --version 2>/dev/null | grep -q "$VERSION" ||
    cargo install --quiet --locked --root "$target/security" "cargo-mutants@$VERSION"
unset CARGO_TARGET_DIR
mkdir -p "$target/mutants/$what"

# Mutates, and lets the test programs named first (words) notice, with further arguments of theirs after `--`.
mutate() {
    local programs=()
    for program in $1; do programs+=("--cargo-arg=--test=$program"); done
    shift
    cargo mutants --config "tests/mutants/$what.toml" --workspace --baseline=skip --timeout 120 --output "$target/mutants/$what" \
        "${programs[@]}" "$@"
}

case "$what" in
    rules)
        # A third of the model's random states is enough to notice; cases that fail are not written down.
        export REFINEMENT_STATES=1500 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
        mutate "rules refinement" --test-package farebox-core --test-package farebox-model "$@" \
            -- -- --skip tiers_properties --skip tiers_diff
        ;;
    report)
        export SIMULATION_SEEDS=5
        ended=0
        mutate simulation --cargo-arg=--lib --test-workspace=true "$@" -- -- --skip caught --skip byte_for_byte || ended=$?
        # 2 or 3: some were missed (or ran out of time). They are shown to the scenarios, and then to months without Stripe.
        case $ended in 2 | 3) ;; *) exit "$ended" ;; esac
        ended=0
        mutate "billing ledger promises life webhook" --test-workspace=true --iterate "$@" || ended=$?
        case $ended in 2 | 3) ;; *) exit "$ended" ;; esac
        mutate chaos --test-workspace=true --iterate "$@" -- -- warps
        ;;
    *)
        sed -n '2,7p' "$0" >&2
        exit 64
        ;;
esac
