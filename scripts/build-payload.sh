#!/usr/bin/env bash
# Builds the programs that travel inside kedge into build/payload/<arch>/, from
# the versions in versions.env, and the archive of it, build/payload/<arch>.zip. Does nothing when they are up to date. Installs
# nothing: scripts/install-build-deps.sh does that.
#
#   ARCH=amd64|arm64|arm   target (default: this machine's)
#   FORCE=1                build again even when up to date
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/versions.env
. scripts/versions.env

ARCH=${ARCH:-$(go env GOHOSTARCH)}
OUT=$PWD/build/payload/$ARCH
# Nothing of the caller's Go settings may change what is built.
export GOFLAGS=-buildvcs=false GOWORK=off GOOS=linux GOARCH=$ARCH GOARM=7
# The release of Go that go.mod names also builds the modules that name an older one.
GOTOOLCHAIN=$(go env GOVERSION)
export GOTOOLCHAIN

case $ARCH in
amd64) TRIPLET=x86_64-linux-gnu LOADER=ld-linux-x86-64.so.2 ;;
arm64) TRIPLET=aarch64-linux-gnu LOADER=ld-linux-aarch64.so.1 ;;
arm) TRIPLET=arm-linux-gnueabihf LOADER=ld-linux-armhf.so.3 ;;
*) echo "build-payload: ARCH=$ARCH is not supported: use amd64, arm64 or arm" >&2; exit 1 ;;
esac
case $(go env GOHOSTARCH) in
"$ARCH") CC=gcc SYSROOT="" ;;
*) CC=$TRIPLET-gcc SYSROOT=$PWD/build/sysroot/$ARCH ;; # unpacked by scripts/install-build-deps.sh
esac
LIBDIR=$SYSROOT/usr/lib/$TRIPLET

# Packages whose files end up in the payload; their versions are in the stamp.
NFT_PACKAGES="nftables libnftables1 libnftnl11 libmnl0 libxtables12 libjansson4 libgmp10
  libedit2 libbsd0 libmd0 libtinfo6 libc6"
NFT_LIBRARIES="libnftables.so.1 libnftnl.so.11 libmnl.so.0 libxtables.so.12 libjansson.so.4 libgmp.so.10
  libedit.so.2 libbsd.so.0 libmd.so.0 libtinfo.so.6 libc.so.6"

# debian_versions prints a line "PACKAGE VERSION" for each; those of another architecture are only unpacked.
debian_versions() {
	if [ -n "$SYSROOT" ]; then
		LC_ALL=C sort "$SYSROOT/versions"
		return
	fi
	# shellcheck disable=SC2046,SC2086 # lists of names
	dpkg-query -W -f '${Package} ${Version}\n' $(printf "%s:$(dpkg --print-architecture) " $NFT_PACKAGES libseccomp-dev) 2>/dev/null || true
}

check_tools() {
	local missing=()
	command -v "$CC" >/dev/null || missing+=("gcc")
	[ -f "$LIBDIR/libseccomp.a" ] || missing+=("libseccomp-dev")
	command -v zstd >/dev/null || missing+=("zstd")
	command -v pkg-config >/dev/null || missing+=("pkg-config")
	nft_program >/dev/null || missing+=("nftables")
	if [ ${#missing[@]} -gt 0 ]; then
		echo "build-payload: missing Debian packages: ${missing[*]}" >&2
		echo "build-payload: run ARCH=$ARCH scripts/install-build-deps.sh as root" >&2
		exit 1
	fi
	local have
	have=$(GOOS='' GOARCH='' go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
	if [ "$have" != "$CONTAINERD_VERSION" ]; then
		echo "build-payload: CONTAINERD_VERSION=$CONTAINERD_VERSION in scripts/versions.env, but go.mod has $have: make them equal" >&2
		exit 1
	fi
}

# nft_program prints the path of Debian's nft for the target.
nft_program() {
	[ -x "$SYSROOT/usr/sbin/nft" ] && echo "$SYSROOT/usr/sbin/nft"
}

stamp() {
	{
		cat scripts/versions.env scripts/build-payload.sh go.sum
		find scripts/tiny scripts/payload cmd/kedge-ipam pkg/ipam pkg/payload/manifest.go test/images/images.go \
			-type f ! -name '*_test.go' ! -path '*/testdata/*' | LC_ALL=C sort | xargs cat
		go version
		debian_versions
	} | sha256sum | cut -d' ' -f1
}

# module DIR_VARIABLE MODULE VERSION: fetches a module and sets its directory.
# Its own go.mod and go.sum then decide the versions of its dependencies.
module() {
	local found
	found=$(cd "$TMP" && go mod download -json "$2@$3" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[ -d "$found" ] || { echo "build-payload: cannot download $2@$3" >&2; exit 1; }
	printf -v "$1" %s "$found"
}

# gobuild MODULE_DIR PACKAGE OUTPUT [LDFLAGS]: a static, stripped Go program.
gobuild() {
	echo "  $3"
	(cd "$1" && CGO_ENABLED=0 go build -trimpath -tags "netgo,osusergo,$TAGS" -gcflags "${GCFLAGS:-}" -ldflags "-s -w ${4:-}" -o "$STAGE/bin/$3" "$2")
}

# build_runc leaves checkpoint and restore out: they need criu, which does not
# travel with kedge.
build_runc() {
	echo "  runc"
	local dir
	module dir github.com/opencontainers/runc "$RUNC_VERSION"
	(cd "$dir" && CGO_ENABLED=1 CC=$CC PKG_CONFIG_SYSROOT_DIR=$SYSROOT PKG_CONFIG_LIBDIR=$LIBDIR/pkgconfig go build -trimpath \
		-tags "seccomp,netgo,osusergo,urfave_cli_no_docs,runc_nocriu" \
		-ldflags "-s -w -linkmode external -extldflags '-static -Wl,--build-id=none'" -o "$STAGE/bin/runc" .)
}

build_go_programs() {
	local dir
	module dir github.com/containerd/containerd/v2 "$CONTAINERD_VERSION"
	# As containerd's own Makefile builds it: the shim speaks ttrpc, and is in memory
	# once a pod. Without gRPC's tracing no templates are linked, which keep everything.
	TAGS=no_grpc,grpcnotrace gobuild "$dir" ./cmd/containerd-shim-runc-v2 containerd-shim-runc-v2 \
		"-X github.com/containerd/containerd/v2/version.Version=$CONTAINERD_VERSION"
	module dir sigs.k8s.io/cri-tools "$CRI_TOOLS_VERSION"
	# Of its test framework crictl uses one constant, and carries all of it for that.
	cp -r "$dir" "$TMP/cri-tools"
	chmod -R u+w "$TMP/cri-tools"
	sed -i '/cri-tools\/pkg\/framework"$/d; s/framework\.OSWindows/"windows"/' "$TMP"/cri-tools/cmd/crictl/*.go
	# People wait for it, nothing else: without inlining it is a fifth smaller when packed. Neither its manual pages nor gRPC's own tracing can be asked for.
	TAGS=grpcnotrace,urfave_cli_no_docs GCFLAGS=all=-l gobuild "$TMP/cri-tools" ./cmd/crictl crictl "-X sigs.k8s.io/cri-tools/pkg/version.Version=$CRI_TOOLS_VERSION"
}

# build_cni builds the CNI plugins as one program, kedge-cni, that is called by
# their names: four programs would carry the same libraries four times. The
# upstream plugins are commands, so their sources are turned into packages here.
build_cni() {
	local dir plugin name
	module dir github.com/containernetworking/plugins "$CNI_PLUGINS_VERSION"
	cp -r "$dir" "$TMP/cni"
	chmod -R u+w "$TMP/cni"
	for plugin in main/bridge main/loopback meta/portmap; do
		name=${plugin#*/}
		rm -f "$TMP/cni/plugins/$plugin"/*_test.go
		sed -i "s/^package main\$/package $name/; s/^func main() {\$/func Main() {/" "$TMP/cni/plugins/$plugin"/*.go
		ln -s kedge-cni "$STAGE/bin/$name"
	done
	mkdir -p "$TMP/cni/kedge/ipam" "$TMP/cni/kedge/plugin"
	find pkg/ipam -maxdepth 1 -name '*.go' ! -name '*_test.go' -exec cp {} "$TMP/cni/kedge/ipam/" \;
	sed "s/^package main\$/package plugin/; s/^func main() {\$/func Main() {/; s#kedge-io/kedge/pkg/ipam#containernetworking/plugins/kedge/ipam#" \
		cmd/kedge-ipam/main.go >"$TMP/cni/kedge/plugin/plugin.go"
	ln -s kedge-cni "$STAGE/bin/kedge-ipam"
	cat >"$TMP/cni/kedge/main.go" <<-'GO'
		package main

		import (
			"fmt"
			"os"
			"path/filepath"

			kedgeipam "github.com/containernetworking/plugins/kedge/plugin"
			"github.com/containernetworking/plugins/plugins/main/bridge"
			"github.com/containernetworking/plugins/plugins/main/loopback"
			"github.com/containernetworking/plugins/plugins/meta/portmap"
		)

		func main() {
			switch name := filepath.Base(os.Args[0]); name {
			case "bridge":
				bridge.Main()
			case "loopback":
				loopback.Main()
			case "portmap":
				portmap.Main()
			case "kedge-ipam":
				kedgeipam.Main()
			default:
				fmt.Fprintf(os.Stderr, "kedge-cni: no plugin is called %q: call bridge, loopback, portmap or kedge-ipam\n", name)
				os.Exit(1)
			}
		}
	GO
	gobuild "$TMP/cni" ./kedge kedge-cni "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$CNI_PLUGINS_VERSION"
}

# tiny SOURCE OUTPUT [FLAG...]: a C program without a C library.
tiny() {
	local source=$1 output=$2
	shift 2
	"$CC" -nostdlib -nostartfiles -ffreestanding -fno-builtin -fno-stack-protector \
		-fno-asynchronous-unwind-tables -Os -Wall -Wextra -Werror -s \
		-Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,norelro "$@" -o "$output" "$source"
}

build_nft() {
	echo "  nft"
	local lib
	mkdir -p "$STAGE/lib/nft"
	cp "$(nft_program)" "$STAGE/lib/nft/nft"
	for lib in $LOADER $NFT_LIBRARIES; do
		if [ -e "$LIBDIR/$lib" ]; then cp -L "$LIBDIR/$lib" "$STAGE/lib/nft/"
		elif [ -e "$SYSROOT/lib/$TRIPLET/$lib" ]; then cp -L "$SYSROOT/lib/$TRIPLET/$lib" "$STAGE/lib/nft/"
		else echo "build-payload: nft needs $lib, which is not in $LIBDIR" >&2; exit 1; fi
	done
	tiny scripts/tiny/nft.c "$STAGE/bin/nft" -static -DLOADER="\"$LOADER\""
	tiny scripts/tiny/protocols.c "$STAGE/lib/nft/libprotocols.so" -shared -fPIC
	chmod 0644 "$STAGE"/lib/nft/*
	chmod 0755 "$STAGE/lib/nft/nft" "$STAGE/lib/nft/$LOADER"
	check_nft
}

# copy_licences puts the terms of Debian's programs and libraries, and the versions
# whose source packages Debian keeps, beside them.
copy_licences() {
	local package found
	echo "  licences"
	for package in $NFT_PACKAGES libseccomp-dev; do
		found=$SYSROOT/usr/share/doc/$package/copyright
		[ -e "$found" ] || { echo "build-payload: $found is missing: install $package again, with its documentation" >&2; exit 1; }
		printf '\n==== Debian package %s\n\n' "$(debian_versions | grep "^$package " || echo "$package")"
		cat "$found"
	done >"$STAGE/lib/nft/LICENCES"
}

# check_nft fails when Debian's nft has come to need a library that is not listed.
check_nft() {
	local need
	for need in $(objdump -p "$STAGE"/lib/nft/* 2>/dev/null | awk '$1 == "NEEDED" {print $2}' | sort -u); do
		[ -e "$STAGE/lib/nft/$need" ] || { echo "build-payload: nft needs $need: add it to NFT_LIBRARIES" >&2; exit 1; }
	done
	[ -n "$SYSROOT" ] || env -i "$STAGE/bin/nft" --version >/dev/null
}

# build_spare makes what only a machine without it uses: it comes last in the search path.
build_spare() {
	echo "  mount"
	mkdir -p "$STAGE/spare"
	tiny scripts/tiny/mount.c "$STAGE/spare/mount" -static
	ln -s mount "$STAGE/spare/umount"
}

build_pause() {
	echo "  pause image"
	mkdir -p "$STAGE/images" "$TMP/pause"
	tiny scripts/tiny/pause.c "$TMP/pause/pause" -static
	payload_tool pause-image -program "$TMP/pause/pause" -ref "$PAUSE_IMAGE:$PAUSE_VERSION" -arch "$ARCH" -o "$STAGE/images/pause.tar"
}

payload_tool() {
	GOOS='' GOARCH='' CGO_ENABLED=0 go run -trimpath -tags netgo,osusergo ./scripts/payload "$@"
}

check_tools
# Builds that run at once wait for each other; the later one finds it done.
mkdir -p build/payload
exec 9>build/payload/.lock
flock 9
STAMP=$(stamp)
if [ -z "${FORCE:-}" ] && [ -f "$OUT/manifest.json" ] && [ -f "$OUT.zip" ] && [ "$(cat "$OUT.stamp" 2>/dev/null)" = "$STAMP" ]; then
	echo "payload for $ARCH is up to date"
	exit 0
fi
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
STAGE=$TMP/stage
TAGS=""
mkdir -p "$STAGE/bin"
echo "building the payload for $ARCH"
build_runc
build_go_programs
build_cni
build_nft
copy_licences
build_spare
build_pause
payload_tool manifest -dir "$STAGE" -pause "$PAUSE_IMAGE:$PAUSE_VERSION" -lazy bin/crictl

# The old directory may be in use: move it aside, never write into it.
rm -rf "$OUT.new" "$OUT.old"
payload_tool archive -dir "$STAGE" -o "$OUT.zip.new"
cp -a "$STAGE" "$OUT.new"
[ ! -e "$OUT" ] || mv "$OUT" "$OUT.old"
mv "$OUT.new" "$OUT"
mv "$OUT.zip.new" "$OUT.zip"
rm -rf "$OUT.old"
echo "$STAMP" >"$OUT.stamp"
echo "payload for $ARCH is in ${OUT#"$PWD"/}"
