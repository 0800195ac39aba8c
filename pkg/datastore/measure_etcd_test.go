package datastore_test

import (
	"flag"
	"net"
	"net/url"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/kedge-io/kedge/pkg/datastore"
	"github.com/kedge-io/kedge/pkg/datastore/measure"
)

var measureBeside = flag.Bool("measure-etcd", false, "with -measure: load an embedded etcd in the same way, before and after")

// TestMeasureBesideEtcd measures etcd, ours, etcd and ours again: on a busy machine only the ratio says
// something.
func TestMeasureBesideEtcd(t *testing.T) {
	if !*measureBeside || *measureFor == 0 {
		t.Skip("needs -measure=3s -measure-etcd")
	}
	for range 2 {
		for _, peer := range []struct {
			name  string
			start func(*testing.T) string
		}{
			{"etcd", startEtcd},
			{"kedge", func(t *testing.T) string { return start(t, datastore.Config{Dir: t.TempDir()}).Endpoint() }},
		} {
			t.Run(peer.name, func(t *testing.T) {
				endpoint := peer.start(t)
				before := cpuTime(t)
				results, err := measure.Run(t.Context(), measure.Config{Endpoint: endpoint, Duration: *measureFor})
				if err != nil {
					t.Fatal(err)
				}
				if err := measure.Print(t.Output(), results); err != nil {
					t.Fatal(err)
				}
				t.Logf("CPU %v, client included", cpuTime(t)-before)
			})
		}
	}
}

// startEtcd runs an etcd with its own defaults, syncing every batch to disk, on unix sockets.
func startEtcd(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = t.TempDir(), "error"
	// it takes no unix socket for its peers
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, peer := url.URL{Scheme: "unix", Path: socketPath(t)}, url.URL{Scheme: "http", Host: free.Addr().String()}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{peer}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd does not start")
	}
	return client.String()
}
