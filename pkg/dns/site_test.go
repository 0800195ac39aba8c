package dns

import (
	"os"
	"testing"

	miekg "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kedge-io/kedge/test/plane"
)

// TestRealSite follows real Services, and goes on answering when the API has died.
func TestRealSite(t *testing.T) {
	if !plane.Isolated(t) {
		return
	}
	site := plane.Start(t)
	rc, err := clientcmd.BuildConfigFromFlags("", site.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	api := kubernetes.NewForConfigOrDie(rc)
	d := startDNS(t, site.Kubeconfig, "")
	awaitAnswer(t, "kubernetes.default.svc.cluster.local", "10.43.0.1")

	made, err := api.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "plc"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "modbus", Port: 502}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, "plc.default.svc.cluster.local", made.Spec.ClusterIP)
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: customName},
		Data:       map[string]string{"site.override": "rewrite name plc.site plc.default.svc.cluster.local"},
	}
	if _, err := api.CoreV1().ConfigMaps(customNamespace).Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitAnswer(t, "plc.site", made.Spec.ClusterIP)

	site.Kill()
	outside(t, "127.0.0.9:53", "10.9.9.9")
	if err := os.WriteFile(d.conf, []byte("nameserver 127.0.0.9\n"), 0o644); err != nil { // rebuilds the server
		t.Fatal(err)
	}
	awaitAnswer(t, "www.example.org", "10.9.9.9")
	for _, name := range []string{"plc.default.svc.cluster.local", "plc.site", "kubernetes.default.svc.cluster.local"} {
		if rcode, got := ask(t, "udp", "10.43.0.10", name, miekg.TypeA); rcode != miekg.RcodeSuccess || got == "" {
			t.Errorf("%s without the API: %s %q", name, miekg.RcodeToString[rcode], got)
		}
	}
}
