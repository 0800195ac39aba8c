package proxy

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kedge-io/kedge/pkg/ingress/route"
)

// table is port 80 for an Ingress of all hosts whose service has the addresses.
func table(t *testing.T, addresses ...string) *route.Port {
	t.Helper()
	w := &route.World{Services: map[string]*corev1.Service{"shop/s": {}}, Slices: map[string][]*discoveryv1.EndpointSlice{}}
	w.IngressClasses = []*networkingv1.IngressClass{{Spec: networkingv1.IngressClassSpec{Controller: route.IngressController}}}
	w.IngressClasses[0].Name = "c"
	ingress := &networkingv1.Ingress{}
	text := "{metadata: {name: i, namespace: shop}, spec: {ingressClassName: c, defaultBackend: {service: {name: s, port: {number: 80}}}}}"
	if err := yaml.Unmarshal([]byte(text), ingress); err != nil {
		t.Fatal(err)
	}
	w.Ingresses = []*networkingv1.Ingress{ingress}
	w.Services["shop/s"].Spec.Ports = []corev1.ServicePort{{Port: 80}}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			t.Fatal(err)
		}
		slice := &discoveryv1.EndpointSlice{}
		if err := yaml.Unmarshal([]byte("{addressType: IPv4, ports: [{name: '', port: "+port+"}], endpoints: [{addresses: ["+host+"]}]}"), slice); err != nil {
			t.Fatal(err)
		}
		w.Slices["shop/s"] = append(w.Slices["shop/s"], slice)
	}
	return route.Build(w).Ports[80]
}

func front(t *testing.T, p *route.Port) *httptest.Server {
	t.Helper()
	transports := NewTransports()
	t.Cleanup(transports.Close)
	server := httptest.NewServer(NewServer(80, p, &tls.Certificate{}, transports, slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	return server
}

func TestForwardedHeadersAreOurs(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Real-Ip"} {
			w.Header().Set(name, strings.Join(r.Header.Values(name), ","))
		}
		w.Header().Set("Got-Host", r.Host)
	}))
	defer backend.Close()
	server := front(t, table(t, strings.TrimPrefix(backend.URL, "http://")))
	req, err := http.NewRequest(http.MethodGet, server.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.test"
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		req.Header.Set(name, "forged")
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.test", "X-Forwarded-Proto": "http",
		"X-Forwarded-Port": "80", "X-Real-Ip": "127.0.0.1", "Got-Host": "shop.test"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestAnotherAddressIsTried has one address that nobody listens on.
func TestAnotherAddressIsTried(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := gone.Addr().String()
	_ = gone.Close()
	server := front(t, table(t, dead, strings.TrimPrefix(backend.URL, "http://")))
	for range 20 {
		expect(t, server, http.StatusOK)
	}
	expect(t, front(t, table(t, dead)), http.StatusBadGateway)
	expect(t, front(t, table(t)), http.StatusServiceUnavailable)
}

func expect(t *testing.T, server *httptest.Server, want int) {
	t.Helper()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("status %d, want %d", resp.StatusCode, want)
	}
}
