#!/bin/sh
# Stands before rustc (RUSTC_WRAPPER): what is fuzzed, and the parsers below it, tell libFuzzer which edges ran and what was
# compared. The SDK's thousand types do not: instrumented, they take an hour to build and steer nothing.
set -eu
case "$*" in
    *"--crate-name farebox_"* | *"--crate-name serde_json "* | *"--crate-name saphyr"* | *"--crate-name http "*)
        exec "$@" -Ccodegen-units=1 -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
esac
exec "$@"
