#!/usr/bin/env bash
# Builds bin/kedge: the Go program with the payload at its end. The same commit
# gives the same bytes.
#
#   ARCH=amd64|arm64|arm   target (default: this machine's)
#   VERSION=v1.2.3         release to stamp (default: Kubernetes' version + KEDGE_REVISION)
#   OUT=FILE               file to write (default: bin/kedge)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/versions.env
. scripts/versions.env

ARCH=${ARCH:-$(go env GOHOSTARCH)}
OUT=${OUT:-bin/kedge}
PLAIN=build/kedge-$ARCH

# stamps prints the -X flags that give the program and its parts their versions.
stamps() {
	local kubernetes containerd version commit state date package
	kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
	containerd=$(go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
	version=${VERSION:-$kubernetes+$KEDGE_REVISION}
	commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
	state=clean
	git diff --quiet HEAD -- 2>/dev/null || state=dirty
	# The commit's date, not the clock's: builds can be repeated.
	date=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)
	local minor=${kubernetes#v1.}
	package=github.com/kedge-io/kedge/pkg/version
	echo "-X $package.version=$version -X $package.commit=$commit -X $package.date=$date"
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		echo "-X $package.gitVersion=$kubernetes+$KEDGE_REVISION"
		echo "-X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
		echo "-X $package.gitCommit=$commit -X $package.gitTreeState=$state -X $package.buildDate=$date"
	done
	echo "-X github.com/containerd/containerd/v2/version.Version=$containerd"
}

ARCH=$ARCH scripts/build-payload.sh
mkdir -p build "$(dirname "$OUT")"
exec 8>build/.lock
flock 8
echo "building $OUT"
# nri_no_wasm: containerd's NRI is off, and its plugins in WebAssembly would bring a compiler of 2.6 MB.
CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH GOARM=7 GOFLAGS=-buildvcs=false go build -trimpath -tags netgo,osusergo,nri_no_wasm \
	-ldflags "-s -w $(stamps | tr '\n' ' ')" -o "$PLAIN" ./cmd/kedge
# The program reads the archive at its own end. Renamed, for the old one may run.
cat "$PLAIN" "build/payload/$ARCH.zip" >"$OUT.new"
chmod 0755 "$OUT.new"
mv "$OUT.new" "$OUT"
# The linker ignores a stamp for a variable that was renamed: look at the result.
if [ "$ARCH" = "$(go env GOHOSTARCH)" ] && "$OUT" version | grep -qw dev; then
	echo "build: $OUT has no version stamped: compare the names in scripts/build.sh with pkg/version" >&2
	exit 1
fi
echo "$OUT is $(stat -c %s "$OUT") bytes"
