#!/usr/bin/env bash
# Meters, a broker, a gateway and a fog watcher on this machine.
#
#   DEMO_SECONDS=N   end by itself after N seconds, with a summary;
#                    exit 0 only if every stored row was delivered
#   DEMO_OUTAGE=1    cut the broker off for some seconds on the way
#
# Ctrl-C ends it and every process that it started.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${DEMO_SECONDS:-0}
outage=${DEMO_OUTAGE:-0}
case $seconds in '' | *[!0-9]*) echo "demo: DEMO_SECONDS=$seconds: want a number of seconds" >&2 && exit 2 ;; esac
run=demo-run
rm -rf "$run"
mkdir -p "$run"
export GRIDGATE_DEMO_PASSWORD=12345678 # of the meters' low-level security

declare -A pid
stop() { # stop NAME: end a process and wait for it
	local p=${pid[$1]:-}
	[ -n "$p" ] || return 0
	unset "pid[$1]"
	kill -TERM "$p" 2>/dev/null || true
	wait "$p" 2>/dev/null || true
}
cleanup() {
	trap - INT TERM EXIT
	for name in gateway watch broker dlms modbus rs485; do stop "$name"; done
}
trap cleanup EXIT
trap 'interrupted=1' INT TERM
interrupted=0

start() { # start NAME COMMAND…: in the background, its output in a file
	local name=$1
	shift
	# In a session of its own: Ctrl-C reaches this script alone, which stops them in order.
	setsid "$@" >"$run/$name.log" 2>&1 &
	pid[$name]=$!
}
await() { # await NAME TEXT: until the process has printed TEXT
	for _ in $(seq 200); do
		grep -q -- "$2" "$run/$1.log" && return 0
		kill -0 "${pid[$1]}" 2>/dev/null || break
		sleep 0.05
	done
	echo "demo: $1 did not start:" >&2
	tail -n 5 "$run/$1.log" >&2
	exit 1
}

start dlms bin/metersim dlms -listen 127.0.0.1:14059 -count 10 -password "$GRIDGATE_DEMO_PASSWORD"
start modbus bin/metersim modbus -listen 127.0.0.1:15020 -count 5 -model eastron-sdm630
start rs485 bin/metersim modbus -pty -link "$run/rs485" -count 5 -model eastron-sdm120 -serial 20270001
broker=(bin/gridfog broker -listen 127.0.0.1:11883)
[ "$outage" = 0 ] || broker+=(-outage-after 6s -outage-for 5s)
start broker "${broker[@]}"
await broker "listening"
await dlms "127.0.0.1:14068"
await modbus "127.0.0.1:15024"
await rs485 "demo-run/rs485"

echo "demo: the page is at http://127.0.0.1:18080/#token=demo" >&2
show=-table
[ "$seconds" = 0 ] || show=-quiet
setsid bin/gridfog watch -broker tcp://127.0.0.1:11883 -session demo -from-start $show -summary "$run/summary.json" 2>"$run/watch.log" &
pid[watch]=$!
start gateway bin/gridgate run -config configs/demo.yaml
await gateway "gridgate runs"

if [ "$seconds" = 0 ]; then
	while [ "$interrupted" = 0 ] && kill -0 "${pid[gateway]}" 2>/dev/null; do sleep 0.2 || true; done
else
	echo "demo: 20 meters for $seconds s$([ "$outage" = 0 ] || echo ', the broker is cut off after 6 s for 5 s')"
	for _ in $(seq $((seconds * 5))); do
		[ "$interrupted" = 0 ] || break
		kill -0 "${pid[gateway]}" 2>/dev/null || break
		sleep 0.2 || true
	done
fi

number() { # number KEY FILE: the last number of that key in lines of JSON, 0 when there is none
	local n
	n=$(grep -so "\"$1\":[0-9]*" "$2" | tail -n 1 | cut -d: -f2) || true
	echo "${n:-0}"
}
stop gateway
stop watch
bin/gridgate buffer stat -path "$run/buffer" -json >"$run/buffer.json"
read=$(number rows_read "$run/gateway.log")
stored=$(number rows_stored "$run/gateway.log")
delivered=$(number delivered "$run/summary.json")
duplicates=$(number duplicates "$run/summary.json")
conflicts=$(number conflicts "$run/summary.json")
missing=$((stored - delivered))
echo "demo: rows read $read, stored $stored, delivered $delivered, missing $missing, duplicate $duplicates"
if [ "$missing" != 0 ] || [ "$conflicts" != 0 ] || [ "$stored" = 0 ]; then
	echo "demo: not every stored row was delivered once; the logs are in $run/" >&2
	exit 1
fi
