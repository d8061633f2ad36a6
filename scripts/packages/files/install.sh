#!/bin/sh
# Installs gridgate from this archive, or over an older one; as root. A
# configuration that is there stays. For a root that is not this machine's:
# DESTDIR=/mnt ./install.sh
set -eu
cd "$(dirname "$0")"
root=${DESTDIR:-}

put() { # FILE MODE PATH: whole or not at all
	mkdir -p "$root$(dirname "$3")"
	cp "$1" "$root$3.new"
	chmod "$2" "$root$3.new"
	mv "$root$3.new" "$root$3"
}

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
	echo "install.sh: has to run as root" >&2
	exit 1
fi
put gridgate 755 /usr/bin/gridgate
[ -e "$root/etc/gridgate/gridgate.yaml" ] || put gridgate.yaml 640 /etc/gridgate/gridgate.yaml
put gridgate.bash 644 /usr/share/bash-completion/completions/gridgate
put gridgate.1.gz 644 /usr/share/man/man1/gridgate.1.gz
if [ -d "$root/lib/systemd/system" ] || [ -d "$root/etc/systemd/system" ]; then
	put gridgate.service 644 /etc/systemd/system/gridgate.service
fi
# What is installed here is what runs, whatever an update brought before.
packaged() {
	rm -f "$root/var/lib/gridgate/firmware/slots/current" "$root/var/lib/gridgate/firmware/slots/trial"
}
if [ -n "$root" ]; then
	packaged
	exit 0
fi

if ! grep -q '^gridgate:' /etc/passwd; then
	if command -v useradd >/dev/null; then
		useradd --system --user-group --home-dir /var/lib/gridgate --no-create-home --shell /bin/false gridgate
	else
		adduser -S -D -H -h /var/lib/gridgate -s /bin/false gridgate # BusyBox
		addgroup gridgate 2>/dev/null || true
	fi
fi
# Serial ports belong to dialout.
if grep -q '^dialout:' /etc/group; then
	usermod -a -G dialout gridgate 2>/dev/null || addgroup gridgate dialout
fi
mkdir -p /var/lib/gridgate
chown gridgate /var/lib/gridgate
chmod 750 /var/lib/gridgate
chgrp gridgate /etc/gridgate/gridgate.yaml
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl enable gridgate.service
	systemctl stop gridgate.service # before, so that it does not confirm a trial afterwards
	packaged
	systemctl start gridgate.service
else
	packaged
fi
echo "gridgate $(gridgate version | head -n 1) is installed; what is next: /etc/gridgate/gridgate.yaml"
