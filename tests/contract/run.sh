#!/usr/bin/env bash
# Holds our Stripe client and the Stripe stand-in to Stripe's own SDK and to its published description. Installs what it needs,
# pinned, below target/. Without npm nothing is checked; without Go what needs stripe-mock is not.
#
# With STRIPE_TEST_KEY set, `run.sh sandbox` does the scenario of sandbox.mjs in that account instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

if ! command -v npm >/dev/null; then
    echo "contract: skipped, there is no npm"
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
    echo "contract: there is no Go, so stripe-mock and the description that it brings along are not asked"
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
