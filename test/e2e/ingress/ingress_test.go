package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/test/lab"
)

// backend is a Service with one pod that says its name, and what it was asked with.
const backend = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: kedge.local/busybox:1
    command: [sh, -c, "mkdir -p /www/cgi-bin /www/deep && echo I am %[1]s >/www/index.html && echo deep %[1]s >/www/deep/index.html && printf '#!/bin/sh\necho Content-type: text/plain; echo; env' >/www/cgi-bin/env && chmod +x /www/cgi-bin/env && httpd -f -p 8080 -h /www"]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: web, port: 80, targetPort: 8080}]
---
`

const rules = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  tls: [{hosts: [one.test], secretName: one}]
  rules:
  - host: one.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {name: web}}}}, {path: /two, pathType: Exact, backend: {service: {name: two, port: {number: 80}}}}]}
  - host: "*.two.test"
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: kedge
  listeners:
  - {name: web, port: 8000, protocol: HTTP, hostname: "*.gate.test"}
  - {name: taken, port: 10250, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: half}
spec:
  parentRefs: [{name: edge, sectionName: web}]
  hostnames: [half.gate.test]
  rules:
  - matches: [{headers: [{name: x-version, value: "2"}]}]
    backendRefs: [{name: two, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301}}]
  - matches: [{path: {type: PathPrefix, value: /env}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /cgi-bin/env}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: User-Agent, value: from the route}]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-Edge, value: kedge}]}}
    backendRefs: [{name: one, port: 80}]
  - backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80, weight: 1}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost}
spec:
  parentRefs: [{name: edge, sectionName: web}]
  hostnames: [lost.gate.test]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
`

type scene struct {
	*testing.T
	lab  *lab.Lab
	s1   *lab.Node
	pool *x509.CertPool
}

// ask sends a request to a port of the machine and returns status, body and headers.
func (s *scene) ask(url string, headers ...string) (int, string, http.Header, error) {
	client := http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.pool},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return s.s1.Dial(ctx, network, net.JoinHostPort(s.s1.IP(), port))
			},
		},
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", nil, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, strings.TrimSpace(string(body)), resp.Header, err
}

// await waits until a request is answered as it should be.
func (s *scene) await(url string, code int, text string, headers ...string) http.Header {
	s.Helper()
	var got http.Header
	s.lab.Await(url, 2*time.Minute, func() error {
		status, body, header, err := s.ask(url, headers...)
		if err != nil {
			return err
		}
		if got = header; status != code || !strings.Contains(body, text) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	return got
}

// secret makes a certificate for one.test.
func (s *scene) secret() string {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"one.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.pool = x509.NewCertPool()
	s.pool.AppendCertsFromPEM(cert)
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: one}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n---\n",
		text(cert), text(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func TestIngressAndGateway(t *testing.T) {
	l := lab.New(t)
	s := &scene{T: t, lab: l, s1: l.AddSite("shop").AddNode("s1", lab.Server())}
	s.s1.AddBusybox()
	s.s1.Start()
	s.s1.AwaitReady()
	if _, err := s.s1.Dial(t.Context(), "tcp", net.JoinHostPort(s.s1.IP(), "80")); err == nil {
		t.Error("port 80 is open before there is an Ingress")
	}
	s.s1.Apply(s.secret() + fmt.Sprintf(backend, "one") + fmt.Sprintf(backend, "two") + rules)
	s.s1.AwaitPods("default", "app in (one,two)", 2)

	s.await("http://one.test/", 200, "I am one")
	s.await("http://one.test/two", 404, "") // Exact: the whole path goes to two, which has no such file
	s.await("http://one.test/deep/", 200, "deep one")
	s.await("http://a.two.test/", 200, "I am two")
	s.await("http://a.b.two.test/", 404, "no route")
	s.await("https://one.test/", 200, "I am one")
	if _, _, _, err := s.ask("https://a.two.test/"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a host without a certificate of its own: %v", err)
	}
	s.gateway()
	s.statuses()
	s.away()
	if log := s.s1.Log(); strings.Contains(log, "level=ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

func (s *scene) gateway() {
	s.Helper()
	s.await("http://half.gate.test:8000/", 200, "I am two", "X-Version", "2")
	s.await("http://lost.gate.test:8000/", 500, "no backend")
	s.await("http://other.gate.test:8000/", 404, "no route")
	if to := s.await("http://half.gate.test:8000/old/page?a=b", 301, "").Get("Location"); to != "https://half.gate.test/new/page?a=b" {
		s.Errorf("redirect to %s", to)
	}
	header := s.await("http://half.gate.test:8000/env", 200, "HTTP_USER_AGENT=from the route", "X-Forwarded-For", "6.6.6.6")
	if header.Get("X-Edge") != "kedge" {
		s.Errorf("headers of the answer: %v", header)
	}
	answers := map[string]int{}
	for range 200 {
		_, body, _, err := s.ask("http://half.gate.test:8000/")
		if err != nil {
			s.Fatal(err)
		}
		answers[body]++
	}
	if one, two := answers["I am one"], answers["I am two"]; one+two != 200 || one < 110 || two < 15 { // 150 and 50, and 6 deviations
		s.Errorf("weights 3 to 1 gave %v", answers)
	}
}

func (s *scene) statuses() {
	s.Helper()
	for what, want := range map[string]string{
		"ingress/shop -o jsonpath={.status.loadBalancer.ingress[*].ip}":                                              s.s1.IP(),
		"gateway/edge -o jsonpath={.status.addresses[*].value}":                                                      s.s1.IP(),
		"gatewayclass/kedge -o jsonpath={.status.conditions[*].status}":                                              "True",
		`gateway/edge -o jsonpath={.status.listeners[0].attachedRoutes},{.status.listeners[1].conditions[0].reason}`: "2,PortUnavailable",
		"httproute/half -o jsonpath={.status.parents[0].conditions[*].reason}":                                       "Accepted ResolvedRefs",
		"httproute/lost -o jsonpath={.status.parents[0].conditions[*].reason}":                                       "Accepted BackendNotFound",
	} {
		s.lab.Await(what, time.Minute, func() error {
			out, err := s.s1.Run(append([]string{"kedge", "kubectl", "get"}, strings.Fields(what)...)...)
			if err == nil && out != want {
				err = errors.New("it is " + out + ", want " + want)
			}
			return err
		})
	}
}

// away takes a pod, and then everything, away.
func (s *scene) away() {
	s.Helper()
	s.s1.Kubectl("delete", "pod", "two", "--now")
	s.await("http://a.two.test/", 503, "no endpoint")
	s.s1.Kubectl("delete", "ingress,gateway,httproute", "--all")
	s.lab.Await("closed ports", time.Minute, func() error {
		for _, port := range []string{"80", "443", "8000"} {
			if conn, err := s.s1.Dial(s.Context(), "tcp", net.JoinHostPort(s.s1.IP(), port)); err == nil {
				_ = conn.Close()
				return fmt.Errorf("port %s is open", port)
			}
		}
		return nil
	})
}
