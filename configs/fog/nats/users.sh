#!/bin/sh
# Makes users.conf for nats.conf out of gateways on standard input, SITE/GATEWAY
# a line, and of the names of fog certificates:
#
#   users.sh fog <gateways >users.conf && nats-server --signal reload
#
# The fog publishes below gridfog too what it refused, and what gridfog bridge
# makes below senml and spBv1.0.
#
# A user is a certificate's alternative name. "/" of MQTT is "." of NATS. The
# subjects of MQTT.sub are how the listener delivers with QoS 1; a filter that
# ends in # is two of NATS.
# shellcheck disable=SC2016  # $MQTT is a subject
set -eu

echo 'users: ['
for name; do
	printf '  {user: "%s", permissions: {publish: ["gridgate.1.*.*.down.>", "gridgate.1.*._group.*.down.>", "gridgate.1.*._firmware.*", "gridfog.>", "senml.>", "spBv1//0.>"], subscribe: ["gridgate.1.>", "gridfog.>", "senml.>", "spBv1//0.>", "$MQTT.sub.>"]}}\n' "$name"
done
while IFS=/ read -r site gateway; do
	[ -n "$gateway" ] || continue
	up=gridgate.1.$site.$gateway.up down=gridgate.1.$site.$gateway.down
	printf '  {user: "%s.%s", permissions: {publish: ["%s.>"], subscribe: ["%s", "%s.>", "gridgate.1.%s._group.*.down", "gridgate.1.%s._group.*.down.>", "gridgate.1.%s._firmware.*", "$MQTT.sub.>"]}}\n' \
		"$site" "$gateway" "$up" "$down" "$down" "$site" "$site" "$site"
done
echo ']'
