#!/bin/sh
# Installs the Debian packages that the lab, VM and shell checks use, or those that are named, and only those that are missing.
# Safe to repeat: with everything present it touches nothing and needs no network.
set -eu

packages="busybox-static shellcheck iproute2 nftables qemu-system-x86 qemu-utils debootstrap e2fsprogs kmod procps strace mosquitto mosquitto-clients redis-server"

missing=""
# shellcheck disable=SC2048 # names of packages
for p in ${*:-$packages}; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $p"
done
# OpenRC cannot be installed beside another init system: the tests use its files.
openrc=$(dirname "$0")/../build/openrc
[ -n "$missing" ] || [ ! -d "$openrc" ] || exit 0
mkdir -p "${openrc%/*}"

if [ "$(id -u)" -ne 0 ]; then
	echo "install-test-deps: run as root to install:$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
[ -z "$missing" ] || apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null

if [ ! -d "$openrc" ]; then
	rm -rf "$openrc.new"
	mkdir -p "$openrc.new/debs" "$openrc.new/root"
	(cd "$openrc.new/debs" && apt-get download -qq -o APT::Sandbox::User=root openrc librc1 libeinfo1)
	for deb in "$openrc.new"/debs/*.deb; do dpkg-deb -x "$deb" "$openrc.new/root"; done
	mv "$openrc.new" "$openrc"
fi
