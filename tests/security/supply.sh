#!/usr/bin/env bash
# What Farebox is made of: licences, sources and bans of every dependency, known vulnerabilities, and a bill of materials for everything
# that ships. Tools and results lie below target/security. A first run builds two tools. Where the database of vulnerabilities can't be
# fetched it fails with the exit code 3, unless FAREBOX_SKIP_MISSING=1 allows to leave them out.
#
#   tests/security/supply.sh            everything
#   tests/security/supply.sh sbom       the bill of materials alone
#   tests/security/supply.sh deny       the rest alone
set -euo pipefail
cd "$(dirname "$0")/../.."

DENY=0.20.2
CYCLONEDX=0.5.9
# What ships: the functions for Lambda, and the command for its operator.
SHIPPED="farebox-authorizer farebox-consumer farebox-notifier farebox-webhook farebox"
LAMBDA_TARGET=aarch64-unknown-linux-gnu

what="${1:-all}"
out="${CARGO_TARGET_DIR:-$PWD/target}/security"
mkdir -p "$out"
export PATH="$out/bin:$PATH"

# Built with its own lock file; a second run finds it there. Speed matters little here.
tool() {
    CARGO_TARGET_DIR="$out/build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=false \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$out" "$1@$2"
}

sbom() {
    echo "== bill of materials"
    tool cargo-cyclonedx "$CYCLONEDX"
    # The tool writes beside each Cargo.toml, so it gets a copy.
    rm -rf "$out/tree" "$out/sbom"
    mkdir -p "$out/tree" "$out/sbom"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$out/tree"
    (cd "$out/tree" && cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps \
        --target "$LAMBDA_TARGET")
    local binary
    for binary in $SHIPPED; do
        # Where it was made is nobody's business.
        find "$out/tree" -name "${binary}_bin.cdx.json" -exec sed "s#file://$out/tree/#file://#g" {} + >"$out/sbom/$binary.cdx.json"
        [ -s "$out/sbom/$binary.cdx.json" ] || { echo "no bill of materials for $binary" >&2; exit 1; }
        echo "   $out/sbom/$binary.cdx.json: $(grep -c '"type": "library"' "$out/sbom/$binary.cdx.json") libraries"
    done
    rm -rf "$out/tree"
}

deny() {
    echo "== licences, bans and sources"
    tool cargo-deny "$DENY"
    cargo deny --log-level warn check licenses bans sources

    echo "== known vulnerabilities"
    # The database is a repository of its own: https://github.com/RustSec/advisory-db.
    if timeout 120 cargo deny --log-level error fetch db >"$out/fetch.log" 2>&1; then
        cargo deny --log-level warn check advisories
    else
        cat "$out/fetch.log" >&2
        echo "SKIPPED: known vulnerabilities, as the RustSec database can't be fetched; run this where https://github.com can be reached" >&2
        [ "${FAREBOX_SKIP_MISSING:-}" = 1 ] || exit 3
    fi
}

case "$what" in
    all) sbom; deny ;;
    sbom) sbom ;;
    deny) deny ;;
    *) echo "usage: $0 [sbom | deny]" >&2; exit 64 ;;
esac
