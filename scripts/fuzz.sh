#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (20) seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=-buildvcs=false

grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' . | sort | while read -r file; do
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$file" | while read -r target; do
		echo "== $(dirname "$file") $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZ_SECONDS:-20}s" -fuzzminimizetime 100x "$(dirname "$file")" </dev/null
	done
done
