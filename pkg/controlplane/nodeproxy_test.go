package controlplane

import (
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"
)

func TestKubeletRequest(t *testing.T) {
	for _, tc := range []struct{ name, path, node, rest string }{
		{"n1", "/api/v1/nodes/n1/proxy/stats/summary", "n1", "/stats/summary"},
		{"n1", "/api/v1/nodes/n1/proxy/logs/", "n1", "/logs/"},
		{"n1", "/api/v1/nodes/n1/proxy", "n1", "/"},
		{"n1:10250", "/api/v1/nodes/n1:10250/proxy/healthz", "n1", "/healthz"},
		{"https:n1:10250", "/api/v1/nodes/https:n1:10250/proxy//nodes/n1/proxy/", "n1", "//nodes/n1/proxy/"},
		{"n1:9100", "/api/v1/nodes/n1:9100/proxy/metrics", "", ""},
		{"http:n1:10250", "/api/v1/nodes/http:n1:10250/proxy/healthz", "", ""},
		{"n1", "/api/v1/nodes/n1/proxying", "", ""},
		{"", "/api/v1/nodes", "", ""},
	} {
		info := &request.RequestInfo{IsResourceRequest: true, APIVersion: "v1", Resource: "nodes", Subresource: "proxy", Name: tc.name}
		node, rest, ok := kubeletRequest(info, tc.path, "10250")
		if node != tc.node || rest != tc.rest || ok != (tc.node != "") {
			t.Errorf("%s: node %q, path %q, %v", tc.path, node, rest, ok)
		}
	}
	for _, info := range []*request.RequestInfo{
		{IsResourceRequest: true, Resource: "pods", Subresource: "proxy", Name: "n1"},
		{IsResourceRequest: true, Resource: "nodes", Subresource: "status", Name: "n1"},
		{IsResourceRequest: true, APIGroup: "x", Resource: "nodes", Subresource: "proxy", Name: "n1"},
		{Resource: "nodes", Subresource: "proxy", Name: "n1"},
	} {
		if _, _, ok := kubeletRequest(info, "/api/v1/nodes/n1/proxy/healthz", "10250"); ok {
			t.Errorf("%+v was taken", info)
		}
	}
}
