#!/usr/bin/env bash
# Runs every test but the soak. Needs what scripts/setup.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=-buildvcs=false

step() { echo "== $*"; }

# tests FLAGS… -- PACKAGES…: what fails runs once more, by itself, and is named: most
# tests here run real programs in real time, on machines that do other things too.
# One that fails twice, or more than three packages that fail, is a failure.
tests() {
	local flags=() log failed
	while [ "$1" != -- ]; do flags+=("$1") && shift; done
	shift
	log=$(mktemp)
	if go test "${flags[@]}" "$@" 2>&1 | tee "$log"; then
		rm "$log"
		return
	fi
	mapfile -t failed < <(sed -nE 's/^FAIL\t([^ \t]+).*/\1/p' "$log" | sort -u)
	echo "== FAILED, once more by itself: $(sed -nE 's/^ *--- FAIL: ([^ ]+).*/\1/p' "$log" | sort -u | tr '\n' ' ')"
	rm "$log"
	[ ${#failed[@]} -gt 0 ] && [ ${#failed[@]} -le 3 ] || return 1
	go test -p 1 "${flags[@]}" "${failed[@]}"
}

step "go vet"
go vet ./...

step "size of the ARMv7 firmware"
scripts/size.sh

step "tests with the modules from elsewhere as the programs have them"
tests -modfile=bin/small/go.mod -timeout 15m -- ./agent/order ./agent/timesync ./agent/vault ./configs ./drivers/line ./internal/mqtt

step "tests"
tests -timeout 15m -- ./...

# A module of its own: it has nats-server, which the firmware's must not.
step "fleets on mosquitto, RabbitMQ and a NATS cluster"
(cd scripts/cluster && go vet ./... && tests -timeout 15m -- ./...)

# Of their own too, and for the same reason.
step "packages, installed in a root of Debian's; images, booted in QEMU"
(cd scripts/packages && go vet ./... && tests -timeout 15m -- ./...)
(cd scripts/image && go vet ./... && tests -timeout 30m -- ./...)

step "tests with the race detector, where goroutines meet"
# Left out is what measures memory, and one process with one goroutine that fills a disk.
tests -race -timeout 20m -skip '^(TestMemory|TestDiskFullLoop)$' -- ./agent/... ./buffer/... ./drivers/... ./internal/mqtt/... ./internal/linktest/...

# Emulated, and left out is what starts processes: the emulator runs this one only.
step "tests as ARMv7"
arm() { GOOS=linux GOARCH=arm GOARM=7 CGO_ENABLED=0 go test -exec qemu-arm-static -short -timeout 15m "$@"; }
# TestGeneralForms is key agreement on P-384: minutes of emulation.
arm -skip '^(TestPowerCut.*|TestGeneralForms)$' ./agent/batch/... ./buffer/state/... ./dlms/... ./internal/column/... ./internal/meter/... ./internal/wire/...
lone='^(TestArchive.*|TestChild.*|TestCompact.*|TestDamage.*|TestDisk.*|TestExport.*|TestFault.*|TestFull.*|TestKilled.*|TestLoop.*|TestMemory|TestMigrat.*|TestModel.*|TestPowerCut.*|TestQuota.*|TestSalvage.*|TestSecondProcess|TestThin.*|TestUncleanStopIsDeclared)$'
arm -skip "$lone" ./buffer
