#!/usr/bin/env bash
# Builds the programs, static and reproducible: the same commit gives the same
# bytes in any folder.
#
#   scripts/build.sh            for this machine, to bin/
#   scripts/build.sh armv7      to bin/armv7/; also arm64 and amd64
set -euo pipefail
cd "$(dirname "$0")/.."

out=bin
case ${1:-} in
'') ;;
armv7) export GOOS=linux GOARCH=arm GOARM=7 out=bin/armv7 ;;
arm64 | amd64) export GOOS=linux GOARCH=$1 out=bin/$1 ;;
*)
	echo "usage: scripts/build.sh [armv7|arm64|amd64]" >&2
	exit 2
	;;
esac

# A release archive has no history but the file VERSION.
version=$(git describe --tags --always --dirty --abbrev=12 2>/dev/null || cat VERSION 2>/dev/null || echo unreleased)

# For size: other people's packages without inlining, a tenth of the firmware, and
# those of ours that do nothing often (docs/decisions/0013-size.md).
small=(-gcflags=all=-l -gcflags=gridgate/...=)
for package in agent agent/bundle agent/doctor agent/modem agent/order agent/status agent/trial cmd/gridgate configs drivers/address; do
	small+=("-gcflags=gridgate/$package=-l")
done

mkdir -p "$out"
for program in gridgate gridfog metersim; do
	CGO_ENABLED=0 go build -trimpath -buildvcs=false "${small[@]}" -ldflags "-s -w -buildid= -X main.version=$version" \
		-o "$out/$program" "./cmd/$program"
done
