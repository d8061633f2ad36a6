#!/bin/sh
# Makes the certificates of a trial: an authority, brokers, gateways, the fog.
#
#   certificates.sh DIR broker NAME…             DIR/broker.pem and .key, for these host names and addresses
#   certificates.sh DIR gateway SITE/GATEWAY…    DIR/SITE.GATEWAY.pem and .key
#   certificates.sh DIR fog NAME…                DIR/NAME.pem and .key
#
# DIR/ca.pem and ca.key are made with the first. A fleet has its own authority,
# and the gateways' keys never leave the gateways; what the certificates must
# say is the same:
#
#   common name SITE/GATEWAY                mosquitto, gridfog broker
#   alternative name DNS:SITE.GATEWAY       NATS, RabbitMQ
#   unit "fog" and DNS:NAME                 the fog's own
set -eu

[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$1 kind=$2
shift 2
mkdir -p "$dir"

# make FILE SUBJECT OPTION…
make() {
	file=$1 subject=$2
	shift 2
	log=$(umask 077 && openssl req -x509 -sha256 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
		-keyout "$file.key" -out "$file.pem" -subj "$subject" "$@" 2>&1) || { echo "$log" >&2; exit 1; }
	chmod 644 "$file.pem"
}
# leaf FILE SUBJECT ALTERNATIVE-NAMES USE
leaf() {
	make "$dir/$1" "$2" -days 397 -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -addext "subjectAltName=$3" \
		-addext "basicConstraints=critical,CA:FALSE" -addext "extendedKeyUsage=$4"
}

[ -e "$dir/ca.key" ] || make "$dir/ca" "/CN=gridgate trial authority" -days 3650

case $kind in
broker)
	names=
	for n; do
		case $n in
		*[!0-9.]*) names=$names,DNS:$n ;;
		*) names=$names,IP:$n ;;
		esac
	done
	leaf broker "/CN=$1" "${names#,}" serverAuth,clientAuth
	;;
gateway)
	for n; do
		case $n in
		*/*/* | /* | */ | *[!a-z0-9/-]*) echo "certificates.sh: $n: want SITE/GATEWAY" >&2 && exit 2 ;;
		*/*) ;;
		*) echo "certificates.sh: $n: want SITE/GATEWAY" >&2 && exit 2 ;;
		esac
		site=${n%/*} gateway=${n#*/}
		leaf "$site.$gateway" "/CN=$site\\/$gateway" "DNS:$site.$gateway,URI:gridgate://$site/$gateway" clientAuth
	done
	;;
fog)
	for n; do
		leaf "$n" "/OU=fog/CN=$n" "DNS:$n" clientAuth
	done
	;;
*)
	echo "certificates.sh: $kind: want broker, gateway or fog" >&2
	exit 2
	;;
esac
