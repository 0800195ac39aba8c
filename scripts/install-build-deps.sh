#!/bin/sh
# Installs what the build needs on Debian 12, and only what is missing. Safe to
# repeat: with everything present it touches nothing and needs no network.
#
#   ARCH=arm64|arm   also what building for that target needs
#   FORCE=1          fetch what is unpacked for that target again, for security updates
set -eu
cd "$(dirname "$0")/.."

packages="ca-certificates curl git make gcc libc6-dev binutils libseccomp-dev pkg-config nftables zstd xz-utils libdeflate-tools busybox-static"
case ${ARCH:-$(dpkg --print-architecture)} in
"$(dpkg --print-architecture)") foreign="" ;;
arm64) foreign=arm64 packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
arm | armhf) foreign=armhf packages="$packages gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
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

if [ -n "$missing$want_go" ] && [ "$(id -u)" -ne 0 ]; then
	echo "install-build-deps: run as root to install:$missing${want_go:+ golang-go (1.21 or newer)}" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
install() {
	apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

backports=/etc/apt/sources.list.d/kedge-backports.list
if [ -n "$want_go" ] && ! grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then
	echo "deb http://deb.debian.org/debian bookworm-backports main" >$backports
fi
[ -z "$missing$want_go" ] || apt-get update -qq
# shellcheck disable=SC2086 # a list of names
[ -z "$missing" ] || install $missing
if [ -n "$want_go" ]; then
	install -t bookworm-backports golang-go
	# Debian's Go does not fetch other releases unless it is told to.
	go env -w GOTOOLCHAIN=auto
fi

[ -n "$foreign" ] || exit 0
[ "$foreign" = armhf ] && target=arm || target=$foreign
sysroot=$PWD/build/sysroot/$target
[ ! -f "$sysroot/versions" ] || [ -n "${FORCE:-}" ] || exit 0

# nft and libseccomp of another architecture are not installed but unpacked, with package lists of their own: this machine's
# packages stay as they are.
apt=$PWD/build/apt/$target
foreign_apt() {
	apt-get -qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache" \
		-o "APT::Architecture=$foreign" -o "APT::Architectures=$foreign" -o APT::Sandbox::User=root "$@"
}
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
: >"$apt/status"
rm -rf "$sysroot" "$apt"/debs/*
mkdir -p "$sysroot.new"
foreign_apt update || echo "install-build-deps: some package lists for $foreign could not be read: its packages may not be the newest" >&2
for p in nftables libnftables1 libnftnl11 libmnl0 libxtables12 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6 libc6 libseccomp-dev; do
	(cd "$apt/debs" && foreign_apt download "$p")
done
for deb in "$apt"/debs/*.deb; do
	dpkg-deb -x "$deb" "$sysroot.new"
	# shellcheck disable=SC2016 # not variables of the shell
	dpkg-deb -W --showformat='${Package} ${Version}\n' "$deb" >>"$sysroot.new/versions"
done
mv "$sysroot.new" "$sysroot"
