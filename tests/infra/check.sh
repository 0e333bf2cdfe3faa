#!/usr/bin/env bash
# Checks template.yaml, infra/snippets and events, and runs the functions with `cargo lambda watch`. Installs what it needs,
# pinned, below target/. Without Python nothing is checked; without npm the snippets for Node and the CDK are not, without Rust
# no function runs. Any finding ends it with another code than 0.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v python3 >/dev/null; then
    echo "infra: skipped, there is no python3"
    exit 0
fi

venv=target/infra-venv
if ! cat tests/infra/{requirements,cargo-lambda}.txt | cmp -s - "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r tests/infra/requirements.txt
    "$venv/bin/python" -m pip install --quiet --no-deps -r tests/infra/cargo-lambda.txt
    cat tests/infra/{requirements,cargo-lambda}.txt >"$venv/requirements.txt"
fi
export SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true PYTHONDONTWRITEBYTECODE=1

echo "== cfn-lint"
"$venv/bin/cfn-lint" template.yaml infra/snippets/sam.yaml infra/snippets/http-api.yaml
echo "== sam validate"
for template in template.yaml infra/snippets/sam.yaml infra/snippets/http-api.yaml; do
    # Credentials are asked for and not used: nothing is sent.
    AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none "$venv/bin/sam" validate --lint --template "$template"
done
echo "== the template and the code, and the functions on farebox dev"
"$venv/bin/python" -W ignore -m unittest discover -s tests/infra -p 'test_*.py'

if ! command -v npm >/dev/null; then
    echo "infra: the snippets for Node and the CDK are skipped, there is no npm"
    exit 0
fi
echo "== snippets for Node and the CDK"
node_dir=target/infra-node
mkdir -p "$node_dir"
if ! cmp -s tests/infra/package-lock.json "$node_dir/installed.json"; then
    cp tests/infra/{package.json,package-lock.json,.npmrc} "$node_dir/"
    (cd "$node_dir" && npm ci --silent)
    cp tests/infra/package-lock.json "$node_dir/installed.json"
fi
cp tests/infra/{package.json,tsconfig.json,snippets.test.mjs} infra/snippets/{cdk.ts,express.mjs} "$node_dir/"
(cd "$node_dir" && npm test --silent)
