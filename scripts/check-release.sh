#!/bin/sh
# Starts each program of a release folder and runs its bundled runc; those of other architectures under qemu-user-static (Debian
# package qemu-user-static), where that is there.
#
#   scripts/check-release.sh DIR
set -eu
[ $# -eq 1 ] || { echo "usage: check-release.sh DIR" >&2; exit 2; }
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT

for program in "$1"/kedge-amd64 "$1"/kedge-arm64 "$1"/kedge-arm; do
	[ -f "$program" ] || continue
	arch=${program##*-}
	emulator=""
	if [ "$arch" != "$(go env GOHOSTARCH)" ]; then
		emulator=qemu-$([ "$arch" = arm64 ] && echo aarch64 || echo "$arch")-static
		command -v "$emulator" >/dev/null || { echo "$arch: not started, for there is no $emulator"; continue; }
	fi
	export KEDGE_DATA_DIR="$data/$arch"
	version=$($emulator "$program" version | awk 'NR == 1 {print $2}')
	# Its exit code is about this machine.
	checks=$($emulator "$program" check-config 2>&1 || true)
	[ "$(printf '%s\n' "$checks" | wc -l)" -ge 5 ] || { echo "$arch: check-config says: $checks" >&2; exit 1; }
	# It unpacks the bundle; the emulator cannot start what the program then becomes.
	$emulator "$program" crictl --version >/dev/null 2>&1 || true
	runc=$($emulator "$data/$arch/data/current/bin/runc" --version | head -n 1)
	echo "$arch: kedge $version, $(printf '%s\n' "$checks" | wc -l) lines of check-config, $runc"
done
