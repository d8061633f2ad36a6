#!/usr/bin/env bash
# Fails when the firmware for ARMv7 has outgrown its budget.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=12000000

scripts/build.sh armv7
size=$(stat -c %s bin/armv7/gridgate)
echo "bin/armv7/gridgate: $size bytes of $limit"
if [ "$size" -gt "$limit" ]; then
	echo "scripts/size.sh: $((size - limit)) bytes too many; 'go version -m' and 'go tool nm -size' show what came in" >&2
	exit 1
fi
