#!/usr/bin/env bash
# Runs every check that does not run the code; all of them, then fails if any
# did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export GOFLAGS=-buildvcs=false

failed=()
check() { # check NAME COMMAND…
	local name=$1
	shift
	echo "lint: $name"
	"$@" || failed+=("$name")
}
quiet() { # quiet COMMAND…: fails when the command prints something
	local out
	out=$("$@" 2>&1) && [ -z "$out" ] && return 0
	printf '%s\n' "$out"
	return 1
}

mapfile -t scripts < <(find scripts configs/fog .ci -type f \( -name '*.sh' -o -path '.ci/run' \) | sort)
check "shell scripts" shellcheck "${scripts[@]}"
check "go.mod" quiet go mod tidy -diff
check "go.mod of scripts/cluster" quiet go -C scripts/cluster mod tidy -diff
check "gofmt" quiet gofmt -l agent buffer cmd configs dlms drivers internal scripts
check "go vet" go vet ./...
check "golangci-lint" scripts/tool.sh golangci-lint run ./...
cluster() { (cd scripts/cluster && go vet ./... && ../tool.sh golangci-lint run -c ../../.golangci.yml ./...); }
check "golangci-lint of scripts/cluster" cluster
check "deadcode" quiet scripts/tool.sh deadcode -test ./...

if [ ${#failed[@]} -gt 0 ]; then
	(IFS=, && echo "lint: failed: ${failed[*]}" >&2)
	exit 1
fi
