#!/usr/bin/env bash
# Builds the programs, static and reproducible: the same commit gives the same
# bytes in any folder.
#
#   scripts/build.sh            for this machine, to bin/
#   scripts/build.sh armv7      to bin/armv7/; also arm64 and amd64
set -euo pipefail
cd "$(dirname "$0")/.."

out=bin link=
case ${1:-} in
'') ;;
# 32-bit kernels have pages of 4 KiB, so segments need not begin at multiples of 64.
armv7) export GOOS=linux GOARCH=arm GOARM=7 out=bin/armv7 link="-R 4096" ;;
arm64 | amd64) export GOOS=linux GOARCH=$1 out=bin/$1 ;;
*)
	echo "usage: scripts/build.sh [armv7|arm64|amd64]" >&2
	exit 2
	;;
esac

# A release archive has no history but the file VERSION.
version=$(git describe --tags --always --dirty --abbrev=12 2>/dev/null || cat VERSION 2>/dev/null || echo unreleased)

# For size (docs/decisions/0013-size.md): nothing is inlined, defers are records
# and not code at each exit, every make is on the heap that might be, long names of
# instances are hashed; no HTTP/2, which nothing here speaks; modules from elsewhere
# without what is not used of them.
small=(-modfile=bin/small/go.mod -tags nethttpomithttp2 "-gcflags=all=-l -d=noopendefer=1,variablemakethreshold=0,maxshapelen=60")

scripts/small.sh
mkdir -p "$out"
for program in gridgate gridfog metersim; do
	CGO_ENABLED=0 go build -trimpath -buildvcs=false "${small[@]}" -ldflags "-s -w -buildid= $link -X main.version=$version" \
		-o "$out/$program" "./cmd/$program"
done
