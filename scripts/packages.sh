#!/usr/bin/env bash
# Makes the packages of this commit in dist/: Debian's for armhf, arm64 and amd64,
# OpenWrt's, archives with an install script, and their hashes. The same commit
# gives the same bytes in any folder.
set -euo pipefail
cd "$(dirname "$0")/.."

# Versions rise with the commits: by date, so that a shallow clone agrees.
if date=$(git log -1 --format=%ct 2>/dev/null); then
	hash=$(git rev-parse --short=12 HEAD)
	version=${VERSION:-0.0.0+$(date -u -d "@$date" +%Y%m%d%H%M%S).$hash}
else # a release archive
	date=${SOURCE_DATE_EPOCH:-0}
	version=${VERSION:-$(cat VERSION)}
fi

for arch in armv7 arm64 amd64; do
	scripts/build.sh "$arch"
done
# What gridgate says of itself, by one that runs here.
shared=bin/shared
mkdir -p $shared
go build -trimpath -buildvcs=false -o $shared/gridgate ./cmd/gridgate
$shared/gridgate completion bash >$shared/gridgate.bash
$shared/gridgate man | gzip -9n >$shared/gridgate.1.gz

rm -rf dist
(cd scripts/packages && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../bin/packages .)
bin/packages -version "$version" -date "$date" -in bin -shared $shared -out dist
(cd dist && sha256sum -- * >SHA256SUMS)
