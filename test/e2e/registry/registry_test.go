package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/test/images"
	"github.com/kedge-io/kedge/test/lab"
)

// registriesFile is a registries.yaml with everything: a registry of our own with a login and an authority, Docker's with a mirror that has the
// images under other names, one that wants a client certificate, one whose certificate nobody vouches for, and a mirror for all others.
const registriesFile = `
mirrors:
  docker.io:
    endpoint: ["https://IP:5000"]
    rewrite: {"^library/(.*)$": "copies/hub/$1"}
  "*":
    endpoint: ["http://IP:5001"]
configs:
  "IP:5000":
    auth: {username: shop, password: secret}
    tls: {ca_file: /var/lib/registries/ca.crt}
  "IP:5002":
    tls: {ca_file: /var/lib/registries/ca.crt, cert_file: /var/lib/registries/client.crt, key_file: /var/lib/registries/client.key}
  "IP:5003":
    tls: {insecure_skip_verify: true}
`

const pullPod = `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  terminationGracePeriodSeconds: 0
  imagePullSecrets: [{name: login}]
  containers: [{name: main, image: "%s", command: [sleep, "100000"]}]
---
`

// login is the Secret of an image pull: shop:secret for the registry on port 5003.
const login = `
apiVersion: v1
kind: Secret
metadata: {name: login}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths": {"IP:5003": {"username": "shop", "password": "secret"}}}'}
---
`

// TestPull pulls from real registries, the sandbox image of the system among them. Then a registry is silent, and the image comes in an archive.
func TestPull(t *testing.T) {
	l := lab.New(t)
	s1 := l.AddSite("shop").AddNode("s1", lab.Role{})
	s1.SetRole(lab.Server("--system-default-registry", s1.IP()+":5000", "--pause-image", "system/pause:1",
		"--private-registry", "/var/lib/registries/registries.yaml"))
	at := func(text string) string { return strings.ReplaceAll(text, "IP", s1.IP()) }
	startRegistries(t, s1, at)
	s1.Start()
	s1.AwaitReady()

	pods := map[string]string{
		"own": "IP:5000/team/app:1", "hub": "docker.io/library/hello:1", "hub-short": "hello:2", "other": "unknown.example/some/app:1",
		"client": "IP:5002/guarded/app:1", "unchecked": "IP:5003/private/app:1",
	}
	var all strings.Builder
	for name, image := range pods {
		fmt.Fprintf(&all, pullPod, name, "pull", at(image))
	}
	s1.Apply(at(login) + all.String())
	s1.AwaitPods("default", "app=pull", len(pods))
	if images := s1.Kedge("crictl", "images"); !strings.Contains(images, s1.IP()+":5000/system/pause") || strings.Contains(images, "kedge.local/pause") {
		t.Errorf("the sandbox image is not that of the registry:\n%s", images)
	}
	s1.Apply(strings.ReplaceAll(at(login), "secret", "wrong") + fmt.Sprintf(pullPod, "locked", "locked", at("IP:5003/private/other:1")))
	awaitEvent(t, l, s1, "locked", "uthoriz")
	lateArchive(t, l, s1)
}

func startRegistries(t *testing.T, s1 *lab.Node, at func(string) string) {
	t.Helper()
	ca, stranger := newAuthority(t), newAuthority(t)
	clientCert, clientKey := ca.leaf("192.0.2.1")
	write(t, s1, map[string][]byte{
		"/var/lib/registries/registries.yaml": []byte(at(registriesFile)), "/var/lib/registries/ca.crt": ca.pem(),
		"/var/lib/registries/client.crt": clientCert, "/var/lib/registries/client.key": clientKey,
	})
	clients := tlsFor(t, ca, s1.IP())
	clients.ClientAuth, clients.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	clients.ClientCAs.AppendCertsFromPEM(ca.pem())
	serve(t, s1, "5000", withLogin(store(t, "team/app:1", "copies/hub/hello:1", "copies/hub/hello:2", "system/pause:1")), tlsFor(t, ca, s1.IP()))
	serve(t, s1, "5001", store(t, "some/app:1"), nil)
	serve(t, s1, "5002", store(t, "guarded/app:1"), clients)
	serve(t, s1, "5003", withLogin(store(t, "private/app:1", "private/other:1")), tlsFor(t, stranger, s1.IP()))
}

// lateArchive pulls from a registry that swallows everything, and brings the image in an archive while the pull waits.
func lateArchive(t *testing.T, l *lab.Lab, s1 *lab.Node) {
	const silent, ref = "192.0.2.99", "192.0.2.99/late/app:1"
	s1.Exec("nft", "add table ip silent; add chain ip silent out { type filter hook output priority 0; }; add rule ip silent out ip daddr "+silent+" drop")
	s1.Apply(fmt.Sprintf(pullPod, "late", "late", ref))
	awaitEvent(t, l, s1, "late", "Pulling image")
	image, err := images.Busybox("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	image.Ref = ref
	begin := time.Now()
	if err := image.WriteDocker(filepath.Join(s1.HostPath("/var/lib/kedge/agent/images"), "late.tar")); err != nil {
		t.Fatal(err)
	}
	s1.AwaitPods("default", "app=late", 1)
	t.Logf("a pod whose pull had begun runs %v after the archive came", time.Since(begin).Round(100*time.Millisecond))
}

// awaitEvent waits until an Event of a pod says something.
func awaitEvent(t *testing.T, l *lab.Lab, s1 *lab.Node, pod, text string) {
	t.Helper()
	client, err := s1.Client()
	if err != nil {
		t.Fatal(err)
	}
	l.Await(fmt.Sprintf("an Event of %s says %q", pod, text), 90*time.Second, func() error {
		events, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
		if err != nil {
			return err
		}
		var all strings.Builder
		for _, e := range events.Items {
			fmt.Fprintln(&all, e.Message)
		}
		if !strings.Contains(all.String(), text) {
			return fmt.Errorf("events: %s", all.String())
		}
		return nil
	})
}
