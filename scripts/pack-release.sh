#!/bin/sh
# Makes a folder with built programs, kedge-ARCH, into a release: a .zst, a .xz and a .gz beside each, install.sh, and
# sha256sums.txt over everything. The same programs give the same bytes.
#
#   scripts/pack-release.sh DIR
#   ZSTD_LEVEL=19 XZ_LEVEL=6 GZIP_LEVEL=12   how hard to try (defaults, of zstd, xz and libdeflate-gzip); a level of 0 leaves the form out
set -eu
[ $# -eq 1 ] || { echo "usage: pack-release.sh DIR" >&2; exit 2; }
source=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
zstd_level=${ZSTD_LEVEL:-19}
xz_level=${XZ_LEVEL:-6}
gzip_level=${GZIP_LEVEL:-12}

for program in kedge-amd64 kedge-arm64 kedge-arm; do
	[ -f "$program" ] || continue
	rm -f "$program.zst" "$program.xz" "$program.gz"
	# The results of zstd and xz do not depend on the number of threads, as long as there is more than one.
	[ "$zstd_level" = 0 ] || zstd -q "-$zstd_level" -T2 --long=27 "$program" -o "$program.zst"
	[ "$xz_level" = 0 ] || xz -q "-$xz_level" -T2 -c "$program" >"$program.xz"
	[ "$gzip_level" = 0 ] || libdeflate-gzip "-$gzip_level" -c <"$program" >"$program.gz"
done
cp "$source/install.sh" install.sh
rm -f sha256sums.txt
LC_ALL=C
export LC_ALL
# shellcheck disable=SC2035 # names of ours
sha256sum * >.sums
mv .sums sha256sums.txt
