#!/bin/sh
# Runs the refinement against AWS's own DynamoDB Local. Needs Java 17 and Maven; everything is kept below target/. Where they are not
# it fails, unless FAREBOX_SKIP_MISSING=1 says that nothing needs to be shown then.
#
#   tests/simulation/dynamodb-local.sh [states]
set -eu
cd "$(dirname "$0")/../.."
for tool in java mvn; do
    command -v "$tool" >/dev/null && continue
    echo "SKIPPED: there is no $tool, so nothing was asked of DynamoDB Local" >&2
    [ "${FAREBOX_SKIP_MISSING:-}" = 1 ] && exit 0
    exit 1
done
place="${CARGO_TARGET_DIR:-target}/dynamodb-local"
mkdir -p "$place"
cat >"$place/pom.xml" <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>farebox</groupId>
  <artifactId>dynamodb-local</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>com.amazonaws</groupId>
      <artifactId>DynamoDBLocal</artifactId>
      <version>2.6.1</version>
    </dependency>
  </dependencies>
</project>
POM
[ -d "$place/lib" ] || mvn -q -B -f "$place/pom.xml" dependency:copy-dependencies -DoutputDirectory=lib
# A port that nobody has. Between this and the server's start somebody could take it; then the server says so and stops.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# It leaves a file where it is started.
(cd "$place" && exec java -Xmx512m -Djava.library.path=lib -cp 'lib/*' \
    com.amazonaws.services.dynamodbv2.local.main.ServerRunner -inMemory -port "$port" >server.log 2>&1) &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT INT TERM
tries=0
until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 60 ] || ! kill -0 "$server" 2>/dev/null; then
        cat "$place/server.log" >&2
        exit 1
    fi
    sleep 1
done
DYNAMODB_ENDPOINT="http://127.0.0.1:$port" REFINEMENT_STATES="${1:-5000}" \
    cargo test -p farebox-simulation --test refinement
