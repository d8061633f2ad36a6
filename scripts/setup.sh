#!/usr/bin/env bash
# Installs what the tests need beyond Go and gcc: Debian packages, only those
# that are missing. Says nothing when there is nothing to do.
set -euo pipefail

packages=(
	chrony            # time servers that the clock is tested with
	e2fsprogs         # makes the file system that a test fills
	faketime          # makes time servers that are wrong
	fuse3             # power cuts in tests: needed where they do not run as root
	libmodbus-dev     # an independent Modbus server, compiled by a test
	mbpoll            # an independent Modbus client
	mosquitto         # the broker that the uplink is tested with
	mosquitto-clients # its publisher and subscriber
	procps            # pgrep
	protobuf-compiler # checks batch.proto
	python3-pymodbus  # an independent Modbus server, for /usr/bin/python3
	qemu-user-static  # runs ARMv7 tests
	shellcheck        # for make lint
	socat             # pairs of pseudo-terminals
)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "scripts/setup.sh: this is not a Debian system; install by hand what provides: ${packages[*]}" >&2
	exit 1
fi
missing=()
for p in "${packages[@]}"; do
	installed "$p" || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "scripts/setup.sh: needs root to install ${missing[*]}: run it as root, or install sudo" >&2
		exit 1
	fi
	root=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
	if ! "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1; then
		cat "$log" >&2
		echo "scripts/setup.sh: apt-get $* failed" >&2
		exit 1
	fi
}
echo "installing ${missing[*]}" >&2
timekeeper=
for p in systemd-timesyncd ntpsec ntp openntpd; do
	! installed "$p" || timekeeper=$p
done
apt update
apt install --no-install-recommends "${missing[@]}"

# The package starts a daemon that sets the clock. It stays where it took the place
# of another.
case " ${missing[*]} " in
*" chrony "*)
	if [ -n "$timekeeper" ]; then
		:
	elif [ -d /run/systemd/system ]; then
		"${root[@]}" systemctl disable --now chrony >/dev/null 2>&1 || true
	elif command -v service >/dev/null; then
		"${root[@]}" service chrony stop >/dev/null 2>&1 || true
	fi
	;;
esac

# The package starts a broker on the standard port; the tests start their own.
case " ${missing[*]} " in
*" mosquitto "*)
	if [ -d /run/systemd/system ]; then
		"${root[@]}" systemctl disable --now mosquitto >/dev/null 2>&1 || true
	elif command -v service >/dev/null; then
		"${root[@]}" service mosquitto stop >/dev/null 2>&1 || true
	fi
	;;
esac
