#!/usr/bin/env bash
# Makes bin/small: copies of modules from elsewhere without what the programs never
# use of them, and a go.mod that takes these. docs/decisions/0013-size.md says what
# it is good for.
#
#   scripts/small.sh && go build -modfile=bin/small/go.mod ./cmd/gridgate
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin
exec 9>bin/.small.lock
flock 9

made=$(cat go.mod go.sum scripts/small.sh scripts/small/*.txt | sha256sum)
if [ "$(cat bin/small/made 2>/dev/null)" = "$made" ]; then
	exit
fi
rm -rf bin/small
mkdir bin/small
cp go.mod go.sum bin/small

# copy MODULE NAME: to bin/small/NAME
copy() {
	go mod download "$1"
	cp -R "$(go list -m -f '{{.Dir}}' "$1")" "bin/small/$2"
	chmod -R u+w "bin/small/$2"
	# The path ends up in the programs: the same in any folder.
	go mod edit -replace="$1=./bin/small/$2" bin/small/go.mod
}

# edit FILE LINE WITH: in place of a line that is there
edit() {
	grep -qxF "$2" "bin/small/$1"
	LINE=$2 WITH=$3 awk '{ print $0 == ENVIRON["LINE"] ? ENVIRON["WITH"] : $0 }' "bin/small/$1" >bin/small/edited
	mv bin/small/edited "bin/small/$1"
}

# internal/mqtt connects by itself: no websockets, and no proxies.
copy github.com/eclipse/paho.mqtt.golang paho
rm bin/small/paho/websocket.go bin/small/paho/netconn.go
cp scripts/small/netconn.go.txt bin/small/paho/netconn.go
# Where there is an interface with Write(io.Writer) error, all that writes requests and
# responses of net/http is kept for it; so packets have one with another type.
sed -i -E 's/^(func \(.*\) |\t)Write\((w )?io\.Writer\) error/\1Write(\2Writer) error/' bin/small/paho/packets/*.go
printf '\n// Writer is what packets are written to.\ntype Writer interface{ io.Writer }\n' >>bin/small/paho/packets/packets.go

# Small packages for two of the standard library's, of which a corner is used. The
# first panics when a program starts with a pattern that it does not know.
copy filippo.io/age age
copy go.bug.st/serial serial
copy go.yaml.in/yaml/v4 yaml
edit age/scrypt.go '	"regexp"' '	"gridgate/scripts/small/regexp"'
edit serial/serial_linux.go '	"regexp"' '	"gridgate/scripts/small/regexp"'
for file in internal/libyaml/{alias_data_path,representer,resolver}.go internal/plugin/registry.go plugin/aliasdata/plugin.go; do
	edit "yaml/$file" '	"regexp"' '	"gridgate/scripts/small/regexp"'
done
copy github.com/beevik/ntp ntp
copy github.com/beevik/nts nts
for file in ntp/{auth,ntp,ntp4,ntp5}.go nts/{ntske,session}.go; do
	edit "$file" '	"encoding/binary"' '	"gridgate/scripts/small/binary"'
done
# agent/timesync asks by NTPv4, and sets no TTL.
edit ntp/ntp.go '		return queryV5(conn, &opt)' '		return nil, ErrInvalidProtocolVersion'
edit ntp/conn.go '	"golang.org/x/net/ipv4"' '	"errors"'
edit ntp/conn.go '		ipconn := ipv4.NewConn(c)' ''
edit ntp/conn.go '		if err := ipconn.SetTTL(opt.TTL); err != nil {' '		if err := errors.ErrUnsupported; err != nil {'
# No plug-ins: not those that a document asks for, nor what they would write YAML with.
edit yaml/internal/libyaml/composer.go '		context, err := opts.AliasData.NewAliasDataContext(aliasDataServices(opts))' \
	'		context, err := opts.AliasData.NewAliasDataContext(AliasDataServices{})'
edit yaml/internal/libyaml/plugin_parser.go '		err = validatePluginEvents(e.events, e.opts.DepthCheck)' '		err = io.ErrNoProgress'
edit yaml/internal/libyaml/plugin_parser.go '	*event = pluginEvent(e.events[e.index])' '	*event = Event{}'
edit yaml/plugin.go 'var pluginRegistry = pluginreg.NewRegistry(' \
	'var pluginRegistry = pluginreg.NewRegistry()

// Registered is what is registered elsewhere.
func Registered() any { return pluginreg.NewRegistry('
sed -i '/^func Registered/,/^)$/ s/^)$/)}/' bin/small/yaml/plugin.go

linked=$(go list -modfile=bin/small/go.mod -deps ./cmd/gridgate | grep -xE 'regexp|github.com/gorilla/websocket|golang.org/x/net/proxy' || true)
if [ -n "$linked" ]; then
	echo "scripts/small.sh: still linked: ${linked//$'\n'/ }" >&2
	exit 1
fi
echo "$made" >bin/small/made
