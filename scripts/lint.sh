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

mapfile -t scripts < <(find scripts configs/fog .ci -type f \( -name '*.sh' -o -path '.ci/run' -o -path scripts/flash -o -path 'scripts/packages/files/*' -not -name gridgate.init \) | sort)
check "shell scripts" shellcheck "${scripts[@]}"
check "go.mod" quiet go mod tidy -diff
modules=(scripts/cluster scripts/packages scripts/image)
for module in "${modules[@]}"; do
	check "go.mod of $module" quiet go -C "$module" mod tidy -diff
done
check "gofmt" quiet gofmt -l agent buffer cmd configs dlms drivers internal scripts
check "go vet" go vet ./...
check "golangci-lint" scripts/tool.sh golangci-lint run ./...
module() { (cd "$1" && go vet ./... && ../tool.sh golangci-lint run -c ../../.golangci.yml ./...); }
for module in "${modules[@]}"; do
	check "golangci-lint of $module" module "$module"
done
check "deadcode" quiet scripts/tool.sh deadcode -test ./...

if [ ${#failed[@]} -gt 0 ]; then
	(IFS=, && echo "lint: failed: ${failed[*]}" >&2)
	exit 1
fi
