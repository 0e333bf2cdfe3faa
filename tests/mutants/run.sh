#!/usr/bin/env bash
# Changes one operator or value at a time and sees whether a test notices. Works on a copy of the tree.
#
#   tests/mutants/run.sh rules      what decides, counts and prices, against its own tests: an hour on one core
#   tests/mutants/run.sh report     what folds, seals and reports, against the simulation
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

case "$what" in
    rules)
        # A third of the model's random states is enough to notice; cases that fail are not written down.
        export REFINEMENT_STATES=1500 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
        tests=(--test-package farebox-core --test-package farebox-model)
        filter=(--skip tiers_properties --skip tiers_diff)
        ;;
    report)
        export SIMULATION_SEEDS=6
        tests=(--test-workspace=true)
        filter=(every_seed)
        ;;
    *)
        sed -n '2,7p' "$0" >&2
        exit 64
        ;;
esac
exec cargo mutants --config "tests/mutants/$what.toml" --workspace "${tests[@]}" --baseline=skip --timeout 120 \
    --output "$target/mutants/$what" "$@" -- -- "${filter[@]}"
