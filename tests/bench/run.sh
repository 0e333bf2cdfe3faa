#!/bin/sh
# Builds what is measured, as it ships, and measures it. --quick only sees whether everything works.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}

# One at a time: built together they would share features, and the authorizer would carry what only others need.
cargo build --profile lambda --locked -p farebox-authorizer
cargo build --profile lambda --locked -p farebox-bench-bare
(cd tests/bench/node && npm ci --no-audit --no-fund --ignore-scripts && npm run --silent build)
exec cargo run --locked -p farebox-bench -- --binaries "$target/lambda" --out "$target/bench" "$@"
