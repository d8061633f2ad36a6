#!/usr/bin/env bash
# Draws the pictures of the local page in docs/images: a gateway with simulated
# meters of three kinds on this machine, in Chromium. Needs what scripts/setup.sh
# installs, and pngquant, and fonts for Arabic (fonts-noto-core).
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in pngquant chromium chronyd node; do
	command -v "$tool" >/dev/null || {
		echo "screenshots: $tool is not here" >&2
		exit 1
	}
done

bin=$PWD/bin images=$PWD/docs/images js=$PWD/agent/web/page/testdata/js
run=$(mktemp -d)
pids=()
cleanup() {
	trap - EXIT INT TERM
	for p in "${pids[@]}"; do kill -TERM "$p" 2>/dev/null || true; done
	wait
	rm -rf "$run"
}
trap cleanup EXIT INT TERM
start() { # start NAME COMMAND…: in the background, its output in a file
	local name=$1
	shift
	"$@" >"$run/$name.log" 2>&1 &
	pids+=($!)
}
await() { # await NAME TEXT: until the process has printed TEXT
	for _ in $(seq 600); do
		grep -q -- "$2" "$run/$1.log" && return 0
		sleep 0.1
	done
	echo "screenshots: $1 did not print $2:" >&2
	tail -n 5 "$run/$1.log" >&2
	exit 1
}

# Where it is nine in the evening, so that there is a day to show.
east=$(((21 - 10#$(date -u +%H) + 36) % 24 - 12))
zone=Etc/UTC
[ $east = 0 ] || zone=$(printf 'Etc/GMT%+d' $((-east)))

cd "$run"
cat >chrony.conf <<X
local stratum 3
port 24123
bindaddress 127.0.0.1
allow 127.0.0.0/8
cmdport 0
bindcmdaddress /
pidfile $run/chrony.pid
X
start chrony chronyd -U -x -d -f chrony.conf -u "$(id -un)"
start broker "$bin/gridfog" broker -listen 127.0.0.1:24190
start dlms "$bin/metersim" dlms -listen 127.0.0.1:24101 -count 12 -offset 2s
start feeder "$bin/metersim" modbus -pty -link feeder-1 -count 40 -serial 20260101
start plc "$bin/metersim" plc -listen 127.0.0.1:24159 -nodes 12 -delay 20ms-200ms -loss 0.04
await broker listening
await dlms 127.0.0.1:24112
await feeder feeder-1
await plc ready

token() { "$bin/gridgate" token new "$@" | tee -a tokens | sed -n 's/^token: //p'; }
technician=$(token -role technician)
consumer=$(token -role consumer -meter house-03)
{
	cat <<X
version: 1
site: zone-3
gateway: gw-0042
time_zone: $zone
buffer: {path: ./buffer}
control: {socket: ./control.sock}
intake: {window: 5s}
time: {servers: ["127.0.0.1:24123"], min_poll: 16s}
uplink: {broker: "tcp://127.0.0.1:24190", start_jitter: 0s}
page:
  listen: 127.0.0.1:24180
  tokens:
X
	sed -n 's/^    /    /p' tokens
	cat <<X
groups:
  house: {lane: instant, every: 5s, channels: [1-0:1.8.0, 1-0:2.8.0, 1-0:1.7.0, 1-0:32.7.0]}
  feeder: {lane: instant, every: 20s, channels: [1-0:1.8.0, 1-0:16.7.0, 1-0:32.7.0, 1-0:52.7.0, 1-0:72.7.0]}
  flat: {lane: instant, every: 15s, channels: [1-0:1.8.0, 1-0:1.7.0]}
  load: {lane: interval, every: 15m, profile: 1-0:99.1.0, back: 2d}
meters:
X
	for i in $(seq 12); do
		printf '  - {id: house-%02d, groups: [house, load], url: "dlms+wrapper://127.0.0.1:%d?client=16"}\n' "$i" $((24100 + i))
	done
	for i in $(seq 40); do
		printf '  - {id: feeder-%02d, serial: "%d", groups: [feeder], url: "modbus+rtu://./feeder-1?unit=%d&model=eastron-sdm630"}\n' "$i" $((20260100 + i)) "$i"
	done
	for i in $(seq 12); do
		printf '  - {id: flat-%02d, serial: GRG%06d, groups: [flat], url: "plc+prime://127.0.0.1:24159?node=GRG%06d&client=16"}\n' "$i" "$i" "$i"
	done
	echo '  - {id: house-13, groups: [house], url: "dlms+wrapper://127.0.0.1:24142?client=16"}'
} >gridgate.yaml
"$bin/gridgate" check -config gridgate.yaml
start gateway "$bin/gridgate" run -config gridgate.yaml
await gateway "gridgate runs"
mkdir -p "$images"
node "$js/pictures.mjs" http://127.0.0.1:24180/ "$technician" "$consumer" "$images"
pngquant --force --ext .png --speed 1 --strip "$images"/page-*.png
ls -l "$images"
