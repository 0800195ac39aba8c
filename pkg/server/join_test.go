package server

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestIdentifyGoesByTheCertificateOnly(t *testing.T) {
	var who user.DefaultInfo
	g := &gate{}
	request := httptest.NewRequest(http.MethodGet, "/v1-kedge/connect", nil)
	request.Header.Set("Authorization", "Bearer of-a-node")
	request.Header.Set("X-Remote-User", "system:node:b")
	request.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	if _, err := g.identify(request); err == nil {
		t.Error("identified before the API server has started")
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	handler := g.wrap(api, authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if len(r.Header) > 0 {
			t.Errorf("the authenticator saw %v", r.Header)
		}
		return &authenticator.Response{User: &who}, true, nil
	}))
	for _, tc := range []struct {
		who  user.DefaultInfo
		node string
	}{
		{user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes"}}, "a"},
		{user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:masters"}}, ""},
		{user.DefaultInfo{Name: "system:kube-proxy", Groups: []string{"system:nodes"}}, ""},
		{user.DefaultInfo{Name: "system:admin", Groups: []string{"system:masters"}}, ""},
	} {
		who = tc.who
		node, err := g.identify(request)
		if (err == nil) != (tc.node != "") || err == nil && node != tc.node {
			t.Errorf("%+v: %q, %v", tc.who, node, err)
		}
	}
	request.TLS.PeerCertificates = nil
	if _, err := g.identify(request); err == nil {
		t.Error("identified without a certificate")
	}
	for _, path := range []string{"/", "/api/v1/nodes", "/v1-kedgeling", "/api//v1/../x", "/pingpong"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusTeapot {
			t.Errorf("%s did not reach the API server: %d", path, w.Code)
		}
	}
}
