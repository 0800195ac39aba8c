// Package lab runs many machines on one host for tests: each is a set of namespaces with its own network, processes, files, control groups and
// host name, on which the built kedge runs as on a machine of its own. Tests under test/ may import it; the product never does.
//
// A test reads like its scenario:
//
//	l := lab.New(t)                                  // skips unless root and bin/kedge are there
//	shop, farm := l.AddSite("shop"), l.AddSiteBehindNAT("farm")
//	s1 := shop.AddNode("s1", lab.Server())           // switched on, kedge not started
//	a1 := farm.AddNode("a1", lab.Agent("--server", s1.URL(), "--token", token))
//	s1.Start(); s1.AwaitReady()
//	a1.Start(); a1.AwaitReady(); s1.AwaitNodes("s1", "a1")
//	s1.Apply(yaml); s1.AwaitPods("default", "app=web", 2)
//	link := l.Link(shop, farm)
//	link.Cut(); link.Heal()                          // the far side is silent
//	farm.Uplink().Slow(slowlink.Quality{Delay: 25 * time.Millisecond, Rate: 10e6})
//	a1.Kill(); a1.Start()                            // SIGKILL of kedge alone: its containers go on
//	a1.Reboot(); a1.Start()                          // everything in the machine dies, /run is empty
//
// The network: every site is a bridge with the addresses 172.20.SITE.0/24, its router has .1, the first node .11. Routers meet in a hub, where a
// site is 203.0.113.SITE. A site behind NAT reaches out under that address and nothing reaches in. Nothing of this is in the host's own network
// namespace; its ports and addresses are not touched.
//
// A machine: process 1 is test/lab/node, which serves test/vm/control on an inherited socket. The host's files are there read-only; /etc, /var and
// /tmp are the machine's own and outlive its reboots; /run, /opt and /root are empty at every boot. The kedge under test is at /opt/kedge/bin/kedge, its
// log in /var/log/kedge.log. The control groups of a machine lie below kedge-lab-RUN/NAME in every hierarchy and are the root of its cgroup
// namespace, so that each kubelet has a /kubepods of its own.
//
// What all machines share with the host: the kernel with its modules, the clock, which no machine may set, the page cache (for an honest power cut use test/vm), /dev, and the sysctls
// outside net: the lab raises fs.inotify.max_user_instances, a kubelet sets vm.overcommit_memory=1, kernel.panic=10 and kernel.panic_on_oops=1.
//
// Everything ends with the test process, however that ends: machines by their control socket, networks because nothing else holds them. The
// directories and empty control groups of a killed test are removed by the next one. After a failure the logs stay in
// build/lab/logs/TEST/NODE, and the test log says so.
package lab
