#!/usr/bin/env bash
# Sets the real clock of this machine, by 2 s for a moment, and puts it back; the
# hardware clock too, where there is one. Needs root. Never in CI, and not on a
# machine whose clock others rely on.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
	echo "scripts/test-clock.sh: setting the clock takes root" >&2
	exit 1
fi
export GOFLAGS=-buildvcs=false
go test -tags realclock -count=1 -timeout 5m -v -run '^TestReal' ./agent/timesync
