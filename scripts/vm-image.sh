#!/bin/sh
# Builds the Debian 12 guest of the VM lab: base.img (ext4 root), vmlinuz and initrd.
#
#   scripts/vm-image.sh OUT_DIR AGENT_BINARY
#
# OUT_DIR gets the three files. The unpacked system is kept as OUT_DIR/../rootfs-<hash>.tar, where the hash covers this
# script, so that a new agent costs seconds and only a change here downloads again.
# VM_MIRROR chooses another Debian mirror. Needs root (chroot, device nodes); scripts/install-test-deps.sh brings the tools.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

[ $# -eq 2 ] || { echo "usage: vm-image.sh OUT_DIR AGENT_BINARY" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "vm-image: run as root: the image needs chroot and device nodes" >&2; exit 1; }
agent=$(realpath "$2")
mkdir -p "$1"
out=$(realpath "$1")
cache=$(dirname "$out")
mirror=${VM_MIRROR:-http://deb.debian.org/debian}
disk_size=8G

"$(dirname "$0")/install-test-deps.sh"

hash=$(sha256sum "$0" | cut -c1-16)
tarball=$cache/rootfs-$hash.tar
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
root=$work/root

# system unpacks a minimal Debian with the cloud kernel and its modules into $root. No nft, no iptables and no container
# tools: what a site needs beyond the kernel travels in the kedge binary, and the guests prove it.
system() {
	debootstrap --variant=minbase \
		--include=systemd,systemd-sysv,dbus,udev,iproute2,kmod,curl,ca-certificates,procps \
		bookworm "$root" "$mirror"
	chroot "$root" apt-get update -qq
	kernel=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ {print $2; exit}')
	(cd "$root" && chroot . sh -c "cd /tmp && apt-get download -qq -o APT::Sandbox::User=root $kernel")
	dpkg-deb --fsys-tarfile "$root"/tmp/linux-image-*.deb | tar -C "$root" --keep-directory-symlink -xf -
	rm -f "$root"/tmp/*.deb "$root"/boot/System.map-* "$root"/var/cache/apt/archives/*.deb
	rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/usr/share/doc "$root"/usr/share/man
	chroot "$root" depmod "$(kernel_version)"
}

kernel_version() { basename "$root"/lib/modules/*; }

# configure makes it boot alone: agent on the virtio port, journal on disk, a static address on the user network, and no
# timers that would wake an idle guest.
configure() {
	install -m 0755 "$agent" "$root/usr/local/sbin/vm-agent"
	cat >"$root/etc/systemd/system/vm-agent.service" <<-UNIT
		[Unit]
		Description=VM lab agent
		DefaultDependencies=no
		After=systemd-remount-fs.service systemd-tmpfiles-setup-dev.service
		Before=shutdown.target
		[Service]
		ExecStartPre=/sbin/modprobe virtio_console
		ExecStart=/usr/local/sbin/vm-agent
		Restart=always
		RestartSec=1
		OOMScoreAdjust=-1000
		KillMode=process
		[Install]
		WantedBy=sysinit.target
	UNIT
	cat >"$root/etc/systemd/network/10-user.network" <<-UNIT
		[Match]
		MACAddress=52:54:00:00:00:01
		[Network]
		Address=10.0.2.15/24
		Gateway=10.0.2.2
		DNS=10.0.2.3
		LinkLocalAddressing=no
		IPv6AcceptRA=no
	UNIT
	echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
	echo 'LABEL=root / ext4 defaults 0 0' >"$root/etc/fstab"
	echo 'guest' >"$root/etc/hostname"
	printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
	mkdir -p "$root/var/log/journal"
	: >"$root/etc/machine-id"
	chroot "$root" systemctl -q enable vm-agent.service systemd-networkd.service
	chroot "$root" systemctl -q mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer \
		dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target getty@tty1.service \
		serial-getty@ttyS0.service systemd-update-utmp.service
}

# initrd mounts the root disk from virtio-blk, a module in this kernel. It is used instead of the built-in nvme because qemu's nvme
# offers a volatile cache but ignores FUA: an acknowledged journal commit could be lost, which no honest disk does.
initrd() {
	dir=$work/initrd
	mkdir -p "$dir/bin" "$dir/dev" "$dir/proc" "$dir/root" "$dir/modules"
	cp "$(command -v busybox)" "$dir/bin/busybox"
	n=0
	chroot "$root" modprobe --show-depends -S "$(kernel_version)" -a virtio_pci virtio_blk |
		awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$work/modules"
	while read -r m; do
		n=$((n + 1))
		cp "$root/$m" "$dir/modules/$(printf %02d "$n").ko"
	done <"$work/modules"
	cat >"$dir/init" <<-'INIT'
		#!/bin/busybox sh
		b=/bin/busybox
		$b mount -t devtmpfs dev /dev
		for m in /modules/*.ko; do $b insmod "$m"; done
		while [ ! -b /dev/vda ]; do $b usleep 10000; done
		$b mount -t ext4 -o rw,noinit_itable /dev/vda /root
		$b mount -o move /dev /root/dev
		exec $b switch_root /root /sbin/init
	INIT
	chmod 0755 "$dir/init"
	(cd "$dir" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out/initrd"
}

if [ ! -f "$tarball" ]; then
	rm -f "$cache"/rootfs-*.tar
	system >"$cache/debootstrap.log" 2>&1 || { tail -n 20 "$cache/debootstrap.log" >&2; exit 1; }
	tar -C "$root" --numeric-owner -cf "$tarball.part" .
	mv "$tarball.part" "$tarball"
else
	mkdir "$root"
	tar -C "$root" --numeric-owner -xpf "$tarball"
fi
configure
initrd
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
rm -f "$out/base.img"
mke2fs -q -t ext4 -L root -E lazy_itable_init=1 -d "$root" "$out/base.part" "$disk_size"
mv "$out/base.part" "$out/base.img"
