#!/usr/bin/env bash
# Builds a release into dist/: for each architecture the program, compressed forms and the list of its parts (SPDX), then
# install.sh and sha256sums.txt. The same commit gives the same bytes.
#
#   ARCHS="amd64 arm64 arm"   targets (default: all three)
#   VERSION=v1.2.3            release to stamp (default: Kubernetes' version + KEDGE_REVISION)
#   OUT=DIR                   folder to write (default: dist)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/versions.env
. scripts/versions.env

ARCHS=${ARCHS:-amd64 arm64 arm}
OUT=${OUT:-dist}
VERSION=${VERSION:-$(go list -m -f '{{.Version}}' k8s.io/kubernetes)+$KEDGE_REVISION}
export VERSION
created=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)

rm -rf "$OUT"
mkdir -p "$OUT"
for arch in $ARCHS; do
	begin=$SECONDS
	ARCH=$arch scripts/install-build-deps.sh
	ARCH=$arch OUT=$OUT/kedge-$arch scripts/build.sh
	go run ./scripts/sbom -binary "$OUT/kedge-$arch" -payload "build/payload/$arch" -version "$VERSION" \
		-created "$created" -o "$OUT/kedge-$arch.spdx.json"
	echo "built $arch in $((SECONDS - begin)) s"
done
begin=$SECONDS
scripts/pack-release.sh "$OUT"
echo "packed in $((SECONDS - begin)) s"
scripts/check-release.sh "$OUT"
(cd "$OUT" && stat -c '%s %n' ./*)
