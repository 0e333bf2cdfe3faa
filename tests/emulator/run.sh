#!/usr/bin/env bash
# The end-to-end run on an emulated AWS: builds the functions as they ship, deploys template.yaml, drives it. With --debug they
# are built as tests build them, which is quicker where tests were built; with --only-run nothing is built. Needs Linux, Python
# 3.11 or later and a C compiler, which Rust needs as well; the rest is installed, pinned, below the target directory. Ends with
# another code than 0 on any failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}

venv=$target/emulator-venv
if ! cmp -s tests/emulator/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p "$target"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r tests/emulator/requirements.txt
    cp tests/emulator/requirements.txt "$venv/requirements.txt"
fi
profile=lambda
case "${1:-}" in
--only-run) ;;
--debug)
    profile=debug
    cargo build --quiet --locked -p farebox-authorizer -p farebox-consumer -p farebox-webhook -p farebox-notifier
    ;;
*) tests/bench/sizes.sh ;;
esac
if [ "${1:-}" != --only-run ]; then
    # With the features that `cargo test --workspace` chooses, so that nothing is compiled twice.
    cargo build --quiet --locked --workspace --bin farebox --example serve
fi
exec "$venv/bin/python" -B tests/emulator/run.py "$target/$profile"
