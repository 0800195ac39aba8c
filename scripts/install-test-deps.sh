#!/bin/sh
# Installs the Debian packages that the lab, VM and shell checks use, and only those that are missing.
# Safe to repeat: with everything present it touches nothing and needs no network.
set -eu

packages="busybox-static shellcheck iproute2 nftables qemu-system-x86 qemu-utils debootstrap e2fsprogs kmod procps strace"

missing=""
for p in $packages; do
	state=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "install-test-deps: run as root to install:$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing >/dev/null
