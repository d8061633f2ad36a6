#!/bin/sh
# Makes definitions.json for rabbitmq.conf out of gateways on standard input,
# SITE/GATEWAY a line, and of the names of fog certificates:
#
#   definitions.sh fog <gateways >definitions.json && rabbitmqctl import_definitions definitions.json
#
# A user is a certificate's alternative name and has no password. A gateway has
# its own session only (its client id is SITE_GATEWAY) and topics below its own
# name; "/" of MQTT is "." of RabbitMQ. Queues are lazy: what waits is on the disk.
set -eu

users='' permissions='' topics=''

# add USER SESSION WRITE READ: the last three are regular expressions in JSON
add() {
	users="$users,
    {\"name\": \"$1\", \"password_hash\": \"\", \"hashing_algorithm\": \"rabbit_password_hashing_sha256\", \"tags\": \"\", \"limits\": {}}"
	queues="mqtt-subscription-$2qos[01]"
	permissions="$permissions,
    {\"user\": \"$1\", \"vhost\": \"/\", \"configure\": \"^$queues\$\", \"write\": \"^(amq\\\\.topic|$queues)\$\", \"read\": \"^(amq\\\\.topic|$queues)\$\"}"
	topics="$topics,
    {\"user\": \"$1\", \"vhost\": \"/\", \"exchange\": \"amq.topic\", \"write\": \"$3\", \"read\": \"$4\"}"
}

for fog; do
	add "$fog" '.*' '^(gridgate\\.1\\.[^.]+\\.(([^.]+|_group\\.[^.]+)\\.down|_firmware)|gridfog|senml|spBv1\\.0)\\.' '^(gridgate\\.1|gridfog|senml|spBv1\\.0)\\.'
done
while IFS=/ read -r site gateway; do
	[ -n "$gateway" ] || continue
	own="gridgate\\\\.1\\\\.$site\\\\.$gateway"
	add "$site.$gateway" "${site}_$gateway" "^$own\\\\.up\\\\." "^(($own|gridgate\\\\.1\\\\.$site\\\\._group\\\\.[^.]+)\\\\.down|gridgate\\\\.1\\\\.$site\\\\._firmware)\\\\."
done
cat <<JSON
{
  "vhosts": [{"name": "/"}],
  "users": [${users#,}
  ],
  "permissions": [${permissions#,}
  ],
  "topic_permissions": [${topics#,}
  ],
  "policies": [
    {"vhost": "/", "name": "gridgate", "pattern": "^mqtt-subscription-", "apply-to": "queues", "priority": 0, "definition": {"queue-mode": "lazy"}}
  ]
}
JSON
