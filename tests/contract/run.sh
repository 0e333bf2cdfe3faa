#!/usr/bin/env bash
# Holds our Stripe client and the Stripe stand-in to Stripe's own SDK and to its published description. Installs what it needs,
# pinned, below target/. It fails where there is no npm, or no Go for stripe-mock; with FAREBOX_SKIP_MISSING=1 it leaves out what needs
# them and says so.
#
# With STRIPE_TEST_KEY set, `run.sh sandbox` does the scenario of sandbox.mjs in that account instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

# What is left out is no success, unless that was agreed to.
missing() {
    echo "SKIPPED: there is no $1, so $2" >&2
    [ "${FAREBOX_SKIP_MISSING:-}" = 1 ]
}

if ! command -v npm >/dev/null; then
    missing npm "neither our requests nor the stand-in's answers are held to Stripe's SDK and description" || exit 1
    exit 0
fi

dir=target/contract
mkdir -p "$dir"
if ! cmp -s tests/contract/package-lock.json "$dir/installed.json"; then
    cp tests/contract/{package.json,package-lock.json,.npmrc} "$dir/"
    (cd "$dir" && npm ci --silent --ignore-scripts)
    cp tests/contract/package-lock.json "$dir/installed.json"
fi
cp tests/contract/{tsconfig.json,*.mjs} "$dir/"

if [ "${1:-}" = sandbox ]; then
    exec node "$dir/sandbox.mjs"
fi

built=${CARGO_TARGET_DIR:-$root/target}/debug/examples
# With the features that `cargo test --workspace` chooses, so that nothing is compiled twice.
cargo build --quiet --locked --workspace --example contract --example serve
export ROOT=$root CLIENT=$built/contract STANDIN=$built/serve

mock=github.com/stripe/stripe-mock@v0.203.0
if command -v go >/dev/null; then
    gopath=$root/$dir/go
    # Read-only module files could not be removed with target/.
    [ -x "$gopath/bin/stripe-mock" ] || GOPATH=$gopath GOBIN=$gopath/bin GOFLAGS=-modcacherw go install "$mock"
    export MOCK=$gopath/bin/stripe-mock SPEC=$gopath/pkg/mod/$mock/embedded/openapi/spec3.json
else
    missing Go "stripe-mock and the description that it brings along are not asked" || exit 1
fi

echo "== the parameters have the types that Stripe publishes"
(cd "$dir" && node_modules/.bin/tsc --project .)
echo "== requests and answers"
results=$dir/results.tap
(cd "$dir" && node --test --test-concurrency=1 --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination=results.tap ./*.test.mjs) || true
count() { awk -v what="$1" '$1 == "#" && $2 == what { print $3 }' "$results"; }
echo "$(count skipped) skipped"
echo "$(count pass) passed, $(($(count fail) + $(count cancelled))) failed"
[ "$(count pass)" -gt 0 ] && [ "$(count fail)" = 0 ] && [ "$(count cancelled)" = 0 ]
