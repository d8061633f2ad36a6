#!/usr/bin/env bash
# A fleet of simulated gateways, a three-node NATS cluster, members of gridfog
# ingest and PostgreSQL on this machine; a node and a member are killed on the
# way. First with a tenth of the gateways, to see what grows.
#
#   GATEWAYS=250 METERS=100   of each gateway
#   BROKER=nats               or mosquitto, rabbitmq
#   CONFIRM=fog               or broker, mixed
#
# Exit 0 only if every value is in the database once.
set -euo pipefail
cd "$(dirname "$0")/.."

gateways=${GATEWAYS:-250}
case $gateways in '' | *[!0-9]* | 0*) echo "cluster: GATEWAYS=$gateways: want a number" >&2 && exit 2 ;; esac
sizes=$gateways
[ "$gateways" -lt 10 ] || sizes=$((gateways / 10)),$gateways
mkdir -p bin
(cd scripts/cluster && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -trimpath -o ../../bin/cluster .)
exec bin/cluster -gateways "$sizes" -meters "${METERS:-100}" -broker "${BROKER:-nats}" -confirm "${CONFIRM:-fog}"
