#!/usr/bin/env bash
# Runs every test but the soak. Needs what scripts/setup.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS=-buildvcs=false

step() { echo "== $*"; }

step "go vet"
go vet ./...

step "size of the ARMv7 firmware"
scripts/size.sh

step "tests"
go test -timeout 15m ./...

lone='^(TestArchive.*|TestChild.*|TestCompact.*|TestDamage.*|TestDisk.*|TestExport.*|TestFault.*|TestFull.*|TestKilled.*|TestLoop.*|TestMemory|TestMigrat.*|TestModel.*|TestPowerCut.*|TestQuota.*|TestSalvage.*|TestSecondProcess|TestThin.*|TestUncleanStopIsDeclared)$'

step "tests with the race detector, where goroutines meet"
go test -race -timeout 15m ./agent/... ./buffer/buffertest/... ./buffer/state/... ./drivers/... ./internal/mqtt/... ./internal/linktest/...
# Of the store, what starts no processes, measures no memory and fills no disks: those run above.
go test -race -timeout 15m -skip "$lone" ./buffer

# Emulated, and left out is what starts processes: the emulator runs this one only.
step "tests as ARMv7"
arm() { GOOS=linux GOARCH=arm GOARM=7 CGO_ENABLED=0 go test -exec qemu-arm-static -short -timeout 15m "$@"; }
arm -skip '^TestPowerCut' ./agent/batch/... ./buffer/state/... ./dlms ./dlms/{axdr,gateway,hdlc,llc,modee,obis,security,wrapper} ./internal/column/... ./internal/meter/... ./internal/wire/...
