#!/usr/bin/env bash
# Runs a development tool in its pinned version:
#
#   scripts/tool.sh golangci-lint run ./...
#
# The first call builds it (golangci-lint takes minutes) and keeps it in
# ${XDG_CACHE_HOME:-~/.cache}/gridgate/tools.
set -euo pipefail

case ${1:-} in
golangci-lint) package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint version=v2.15.0 ;;
deadcode) package=golang.org/x/tools/cmd/deadcode version=v0.52.0 ;;
govulncheck) package=golang.org/x/vuln/cmd/govulncheck version=v1.9.0 ;;
benchstat) package=golang.org/x/perf/cmd/benchstat version=v0.0.0-20260908200009-22c9c6c9d4da ;;
*)
	echo "usage: scripts/tool.sh golangci-lint|deadcode|govulncheck|benchstat [ARGUMENTS]" >&2
	exit 2
	;;
esac
name=$1
shift

tools=${XDG_CACHE_HOME:-${HOME:?}/.cache}/gridgate/tools
binary=$tools/$name-$version
if [ ! -x "$binary" ]; then
	echo "building $name $version, once" >&2
	mkdir -p "$tools"
	new=$(mktemp -d "$tools/new.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	(cd "$new" && GOBIN=$new GOFLAGS=-buildvcs=false CGO_ENABLED=0 go install -ldflags='-s -w' "$package@$version")
	mv "$new/$name" "$binary"
	rm -rf "$new"
	trap - EXIT
fi
exec "$binary" "$@"
