#!/bin/sh
# Makes a folder with built programs, kedge-ARCH, into a release: a .zst and a .gz beside each, install.sh, and
# sha256sums.txt over everything. The same programs give the same bytes.
#
#   scripts/pack-release.sh DIR
#   ZSTD_LEVEL=19 GZIP_LEVEL=12   how hard to try (defaults, of zstd and libdeflate-gzip); a level of 0 leaves the form out
set -eu
[ $# -eq 1 ] || { echo "usage: pack-release.sh DIR" >&2; exit 2; }
source=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
zstd_level=${ZSTD_LEVEL:-19}
gzip_level=${GZIP_LEVEL:-12}

for program in kedge-amd64 kedge-arm64 kedge-arm; do
	[ -f "$program" ] || continue
	rm -f "$program.zst" "$program.gz"
	# The result does not depend on the number of threads, as long as it is not --single-thread.
	[ "$zstd_level" = 0 ] || zstd -q "-$zstd_level" -T2 --long=27 "$program" -o "$program.zst"
	[ "$gzip_level" = 0 ] || libdeflate-gzip "-$gzip_level" -c <"$program" >"$program.gz"
done
cp "$source/install.sh" install.sh
rm -f sha256sums.txt
LC_ALL=C
export LC_ALL
# shellcheck disable=SC2035 # names of ours
sha256sum * >.sums
mv .sums sha256sums.txt
