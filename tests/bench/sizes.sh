#!/bin/sh
# Builds the functions as they ship and prints how large each is; with --only-print it builds nothing.
set -eu
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}

printf '| function | MiB | zipped MiB |\n| --- | --- | --- |\n'
for function in authorizer consumer notifier webhook; do
    if [ "${1:-}" != --only-print ]; then
        cargo build --quiet --profile lambda --locked -p "farebox-$function"
    fi
    binary="$target/lambda/farebox-$function"
    zipped=$(gzip -9 -c "$binary" | wc -c)
    wc -c < "$binary" | awk -v name="$function" -v zipped="$zipped" \
        '{ printf "| %s | %.2f | %.2f |\n", name, $1 / 1048576, zipped / 1048576 }'
done
