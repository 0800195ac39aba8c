// Package vm runs real Debian 12 machines, with systemd and cgroup v2, in qemu's software emulation for tests: it builds the image,
// boots, runs commands, copies files, joins machines by network segments, and cuts the power honestly. Tests of kedge under
// test/ may import it; the product never does.
//
// A test reads like its scenario:
//
//	vm.Require(t)                          // skips unless KEDGE_VM=1
//	g := vm.New(t, vm.Config{Name: "site", MemMiB: 4096, Files: map[string]string{"/usr/local/bin/kedge": "../../bin/kedge"}})
//	t.Log(g.Boot())                        // power-on until systemd is done; the files are in place after the first boot
//	g.MustRun("systemctl enable --now kedge")
//	g.PowerCut(disk.LoseSome)              // qemu is killed, unflushed writes are kept, lost or torn at random
//	g.Boot()                               // the same disk again
//	g.Shutdown()                           // systemctl poweroff
//
// What the machine has: a minimal Debian with the distribution's cloud kernel and all its modules, no nft, no iptables and no
// container tools; one ext4 disk of 8 GiB; a card at 10.0.2.15 whose gateway leads nowhere unless Config.Uplink says otherwise;
// one card for each of Config.NICs on a Segment. CPUs are emulated: expect a tenth of the host's speed, and wait for
// events with generous limits.
//
// Control goes over a virtio serial port to an agent in the guest (test/vm/guest, protocol in test/vm/control), so Run, Exec,
// CopyIn, CopyOut, Dial and Forward work with every link down. The agent starts early in the boot: AwaitAgent returns
// before AwaitBoot. Programs started through Run belong to the agent's service; start daemons with systemd.
//
// The disk is served to qemu over NBD by this process (test/vm/disk) and has a volatile write cache: a write is safe only after a flush. Disk
// is virtio-blk because the nvme device of qemu 7.2 offers a volatile cache but drops the FUA flag that ext4 relies on.
//
// Everything ends with the test. All sockets are inherited, so there are no ports, paths or listeners to leave behind; qemu dies
// with the test process, even when that is killed; directories of a killed process are removed by the next one. Images
// and caches live in build/vm; after a failure the logs stay in build/vm/logs/TEST-PID/GUEST, and the test log says so.
package vm
