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

# Without websockets, and what they link of HTTP.
copy github.com/eclipse/paho.mqtt.golang paho
[ -f bin/small/paho/websocket.go ]
cp scripts/small/websocket.go.txt bin/small/paho/websocket.go

# With a small package for regular expressions. It panics when a program starts with
# a pattern that it does not know.
copy filippo.io/age age
copy go.bug.st/serial serial
copy go.yaml.in/yaml/v4 yaml
regexp=(age/scrypt.go serial/serial_linux.go
	yaml/internal/libyaml/{alias_data_path,representer,resolver}.go yaml/internal/plugin/registry.go yaml/plugin/aliasdata/plugin.go)
for file in "${regexp[@]}"; do
	grep -q '^	"regexp"$' "bin/small/$file"
	sed -i 's|^	"regexp"$|	"gridgate/scripts/small/regexp"|' "bin/small/$file"
done

linked=$(go list -modfile=bin/small/go.mod -deps ./cmd/gridgate | grep -xE 'regexp|github.com/gorilla/websocket' || true)
if [ -n "$linked" ]; then
	echo "scripts/small.sh: still linked: ${linked//$'\n'/ }" >&2
	exit 1
fi
echo "$made" >bin/small/made
