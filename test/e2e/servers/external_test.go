package servers

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/pkg/certs"
	db "github.com/kedge-io/kedge/test/database"
	"github.com/kedge-io/kedge/test/lab"
)

// database is an etcd of its own on a machine, for clients with a certificate.
type database struct {
	endpoint  string
	ca        string // paths on the host
	cert, key string
}

// startDatabase runs the etcd in this process, with a door for TLS in the machine's network.
func startDatabase(t *testing.T, n *lab.Node) database {
	t.Helper()
	socket, files := db.Start(t, net.ParseIP(n.IP()))
	door(t, n, socket, files)
	return database{"https://" + net.JoinHostPort(n.IP(), "2379"), files.PeerCA.Cert, files.Peer.Cert, files.Peer.Key}
}

// door takes connections of clients that have a certificate to the socket.
func door(t *testing.T, n *lab.Node, socket string, files *certs.Server) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Peer.Cert, files.Peer.Key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(files.PeerCA.Cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	listener, err := n.Listen("tcp", net.JoinHostPort(n.IP(), "2379"))
	if err != nil {
		t.Fatal(err)
	}
	listener = tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
	})
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			outside, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(outside, socket)
		}
	}()
}

func pass(outside net.Conn, socket string) {
	defer outside.Close()
	inside, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer inside.Close()
	go func() {
		_, _ = io.Copy(inside, outside)
		_ = inside.Close()
	}()
	_, _ = io.Copy(outside, inside)
}

// configure writes the settings of a server of this datastore, as its owner would.
func (d database) configure(t *testing.T, n *lab.Node) {
	t.Helper()
	n.Exec("mkdir", "-p", "/etc/kedge")
	for name, path := range map[string]string{"ca.crt": d.ca, "db.crt": d.cert, "db.key": d.key} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.RunInput(string(text), "sh", "-c", "umask 077; cat >/etc/kedge/"+name); err != nil {
			t.Fatal(err)
		}
	}
	settings := fmt.Sprintf("datastore-endpoint: %s\ndatastore-cafile: /etc/kedge/ca.crt\ndatastore-certfile: /etc/kedge/db.crt\ndatastore-keyfile: /etc/kedge/db.key\ntoken: %s\n",
		d.endpoint, token)
	if _, err := n.RunInput(settings, "sh", "-c", "cat >/etc/kedge/config.yaml"); err != nil {
		t.Fatal(err)
	}
}

func TestTwoServersOfOneDatastore(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	s := &scene{T: t, lab: l}
	s.s1 = l.AddSite("one").AddNode("s1", lab.Server(lease))
	s.s2 = l.AddSite("two").AddNode("s2", lab.Server(lease))
	s.a1 = l.AddSiteBehindNAT("farm").AddNode("a1", lab.Agent("--server", s.s1.URL(), "--token", token))
	db := startDatabase(t, l.AddSite("cellar").AddNode("db", lab.Role{}))
	db.configure(t, s.s1)
	db.configure(t, s.s2)
	s.a1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	s.s2.Start()
	s.a1.Start()
	s.s2.AwaitReady()
	s.s2.AwaitNodes("s1", "s2", "a1")
	s.web(s.s2, 1)
	pod := s.s1.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
	s.reaches(s.s1, pod, "a1")
	s.reaches(s.s2, pod, "a1")
	if got := s.leader(s.s2); got != "s1" {
		t.Errorf("%s leads", got)
	}

	s.s1.Kill()
	begin := time.Now()
	s.writes(s.s2)
	s.reaches(s.s2, pod, "a1")
	s.web(s.s2, 2)
	t.Logf("scaled %s after the death of the first server", time.Since(begin).Round(time.Millisecond))
	if got := s.s2.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); got != "0" {
		t.Errorf("the pod was restarted: %s", got)
	}
	rotated := s.s2.Kedge("token", "rotate")
	s.s1.Start() // its settings have the old token
	s.s1.AwaitReady()
	if got := s.token(s.s1); got != rotated || strings.Contains(got, token) {
		t.Errorf("token %s, and %s on the other server", got, rotated)
	}
	s.reaches(s.s1, pod, "a1")
	if got := s.leader(s.s1); got != "s2" {
		t.Errorf("%s leads", got)
	}
}
