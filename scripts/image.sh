#!/usr/bin/env bash
# Makes the image of a board in dist/: gridgate-BOARD.img, the same as .zst, the
# map of its blocks, and in gridgate-BOARD.slot the files of a slot. The same
# commit gives the same bytes in any folder.
#
#   scripts/image.sh virt-armv7      scripts/image.sh -list   what boards there are
set -euo pipefail
cd "$(dirname "$0")/.."

board=${1:-}
mkdir -p bin
(cd scripts/image && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../../bin/imagetool .)
arch=$(bin/imagetool -list | awk -v b="$board" '$1 == b { print $2 }')
if [ -z "$arch" ]; then
	[ "$board" = -list ] || echo "scripts/image.sh: no board '$board'; there are:" >&2
	bin/imagetool -list
	[ "$board" = -list ] && exit
	exit 2
fi

scripts/build.sh "$arch"
case $arch in
armv7) export GOARCH=arm GOARM=7 ;;
*) export GOARCH=$arch ;;
esac
(cd scripts/image && GOOS=linux CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "../../bin/$arch/init" ./init)
rm -rf "dist/gridgate-$board.slot"
bin/imagetool -board "$board" -agent "bin/$arch/gridgate" -init "bin/$arch/init" -out "dist/gridgate-$board.img" -slot "dist/gridgate-$board.slot"
ls -l dist/gridgate-"$board".img*
