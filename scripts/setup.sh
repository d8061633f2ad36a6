#!/usr/bin/env bash
# Installs what the tests need beyond Go and gcc: Debian packages, and of npm what
# the JavaScript in tests needs; only what is missing. Says nothing when there is
# nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

# The packages of the JavaScript in tests, in the versions of the lock files.
javascript() {
	local dir
	for dir in agent/batch/testdata/js agent/web/page/testdata/js cmd/gridfog/bridge/testdata/js docs/examples/fog; do
		cmp -s $dir/package-lock.json $dir/node_modules/.locked && continue
		echo "installing the packages of $dir" >&2
		if ! npm ci --prefix $dir --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
			echo "scripts/setup.sh: npm ci failed" >&2
			exit 1
		fi
		cp $dir/package-lock.json $dir/node_modules/.locked
	done
}

packages=(
	age               # seals and opens secrets beside us
	chromium          # shows the local page
	bmap-tools        # writes images by their block maps, beside scripts/flash
	chrony            # time servers that the clock is tested with
	dosfstools        # makes images
	e2fsprogs         # makes images, and the file system that a test fills
	fdisk             # makes images
	faketime          # makes time servers that are wrong
	fuse3             # power cuts in tests: needed where they do not run as root
	librsvg2-bin      # draws the label that a test reads
	libmodbus-dev     # an independent Modbus server, compiled by a test
	mandoc            # checks the manual page
	mbpoll            # an independent Modbus client
	mmdebstrap        # a root to install packages in
	minisign          # signs and verifies documents beside us
	mtools            # makes images
	mosquitto         # the broker that the uplink is tested with
	mosquitto-clients # its publisher and subscriber
	postgresql        # what gridfog ingest stores into
	openssl           # makes the certificates of clients
	procps            # pgrep
	prometheus        # its promtool checks our metrics
	protobuf-compiler # checks batch.proto
	python3-jsonschema # checks the schema of configurations, and answers of the local API
	python3-paho-mqtt # a fog in Python
	python3-protobuf  # likewise
	python3-yaml      # reads configurations and docs/openapi.yaml beside us
	python3-pymodbus  # an independent Modbus server, for /usr/bin/python3
	qemu-system-arm   # boots images
	qemu-user-static  # runs ARMv7 tests
	rabbitmq-server   # another broker for fleets
	shellcheck        # for make lint
	socat             # pairs of pseudo-terminals
	u-boot-qemu       # the boot loader of the machines that QEMU is
	u-boot-tools      # makes the boot loader's script
	xz-utils          # packs firmware beside us
	zbar-tools        # reads QR codes
	zstd              # makes images
	systemd           # its systemd-analyze checks the unit, and a test runs it
)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "scripts/setup.sh: this is not a Debian system; install by hand what provides: ${packages[*]}" >&2
	exit 1
fi
# Any node will do; Debian's where there is none.
command -v node >/dev/null && command -v npm >/dev/null || packages+=(nodejs npm)
missing=()
for p in "${packages[@]}"; do
	installed "$p" || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
	javascript
	exit
fi

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

# These packages start a service; the tests start their own. chrony stays where it
# took the place of another that kept the clock.
services=(mosquitto postgresql prometheus rabbitmq-server)
[ -n "$timekeeper" ] || services+=(chrony)
for service in "${services[@]}"; do
	case " ${missing[*]} " in
	*" $service "*)
		if [ -d /run/systemd/system ]; then
			"${root[@]}" systemctl disable --now "$service" >/dev/null 2>&1 || true
		elif command -v service >/dev/null; then
			"${root[@]}" service "$service" stop >/dev/null 2>&1 || true
		fi
		;;
	esac
done
javascript
