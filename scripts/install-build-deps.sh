#!/bin/sh
# Installs what the build needs on Debian 12, and only what is missing. Safe to
# repeat: with everything present it touches nothing and needs no network.
#
#   ARCH=arm64|arm   also what building for that target needs
set -eu
cd "$(dirname "$0")/.."

packages="ca-certificates curl git make gcc libc6-dev binutils libseccomp-dev pkg-config nftables zstd busybox-static"
case ${ARCH:-$(dpkg --print-architecture)} in
"$(dpkg --print-architecture)") foreign="" ;;
arm64) foreign=arm64 packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross libseccomp-dev:arm64" ;;
arm | armhf) foreign=armhf packages="$packages gcc-arm-linux-gnueabihf libc6-dev-armhf-cross libseccomp-dev:armhf" ;;
*) echo "install-build-deps: ARCH=$ARCH is not supported: use amd64, arm64 or arm" >&2; exit 1 ;;
esac

missing=""
for p in $packages; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $p"
done

# Any Go since 1.21 fetches the release that go.mod names; Debian 12's own is older.
go_minor=$(go version 2>/dev/null | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
want_go=""
[ "${go_minor:-0}" -ge 21 ] || want_go=yes

[ -n "$missing$want_go" ] || [ -n "$foreign" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "install-build-deps: run as root to install:$missing${want_go:+ golang-go (1.21 or newer)}" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
install() {
	apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

if [ -n "$foreign" ] && ! dpkg --print-foreign-architectures | grep -qx "$foreign"; then
	dpkg --add-architecture "$foreign"
fi
backports=/etc/apt/sources.list.d/kedge-backports.list
if [ -n "$want_go" ] && ! grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then
	echo "deb http://deb.debian.org/debian bookworm-backports main" >$backports
fi
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
[ -z "$missing" ] || install $missing
if [ -n "$want_go" ]; then
	install -t bookworm-backports golang-go
	# Debian's Go does not fetch other releases unless it is told to.
	go env -w GOTOOLCHAIN=auto
fi

# nft of another architecture cannot be installed beside this machine's: unpack it.
if [ -n "$foreign" ]; then
	[ "$foreign" = armhf ] && target=arm || target=$foreign
	sysroot=build/sysroot/$target
	rm -rf "$sysroot" build/debs
	mkdir -p "$sysroot" build/debs
	for p in nftables libnftables1 libnftnl11 libmnl0 libxtables12 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6 libc6; do
		(cd build/debs && apt-get download -qq "$p:$foreign")
	done
	for deb in build/debs/*.deb; do
		dpkg-deb -x "$deb" "$sysroot"
	done
fi
