#!/usr/bin/env bash
# Checks template.yaml, infra/snippets and events. Installs what it needs, pinned, below target/. Without Python nothing is
# checked; without npm the snippets for Node and the CDK are not. Any finding ends it with another code than 0.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v python3 >/dev/null; then
    echo "infra: skipped, there is no python3"
    exit 0
fi

venv=target/infra-venv
if ! cmp -s tests/infra/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet -r tests/infra/requirements.txt
    cp tests/infra/requirements.txt "$venv/requirements.txt"
fi
export SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true PYTHONDONTWRITEBYTECODE=1

echo "== cfn-lint"
"$venv/bin/cfn-lint" template.yaml infra/snippets/sam.yaml infra/snippets/http-api.yaml
echo "== sam validate"
for template in template.yaml infra/snippets/sam.yaml infra/snippets/http-api.yaml; do
    # Credentials are asked for and not used: nothing is sent.
    AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none "$venv/bin/sam" validate --lint --template "$template"
done
echo "== the template and the code"
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
