package autonomy

import (
	"bytes"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kedge-io/kedge/pkg/autonomy/filter"
)

// ownFilters lead the pods of this node to the node API: kube-proxy sends the Service kubernetes to it, and pods trust it.
func (n *NodeAPI) ownFilters() []filter.Filter {
	slices := schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
	return []filter.Filter{
		filter.Func{On: filter.For(slices, filter.KubeProxy), Do: func(_ filter.Request, o runtime.Object) runtime.Object {
			return hereInstead(o, n.cfg.NodeIPs)
		}},
		filter.Func{On: filter.For(schema.GroupResource{Resource: "configmaps"}, filter.Kubelet), Do: func(_ filter.Request, o runtime.Object) runtime.Object {
			return trustInConfigMap(o, n.local.PEM())
		}},
		filter.Func{On: filter.For(schema.GroupResource{Resource: "secrets"}, filter.Kubelet), Do: func(_ filter.Request, o runtime.Object) runtime.Object {
			return trustInSecret(o, n.local.PEM())
		}},
	}
}

// hereInstead points the endpoints of the Service kubernetes to the node API.
func hereInstead(o runtime.Object, nodeIPs []netip.Addr) runtime.Object {
	s, ok := o.(*discoveryv1.EndpointSlice)
	if !ok || s.Namespace != corev1.NamespaceDefault || s.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
		return o
	}
	for _, ip := range nodeIPs {
		if ip.Is4() != (s.AddressType == discoveryv1.AddressTypeIPv4) {
			continue
		}
		s = s.DeepCopy()
		ready, port := true, int32(Port)
		s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}
		for i := range s.Ports {
			s.Ports[i].Port = &port
		}
		return s
	}
	return o
}

// trustInConfigMap adds this node's authority to the one that pods verify the API with.
func trustInConfigMap(o runtime.Object, authority []byte) runtime.Object {
	m, ok := o.(*corev1.ConfigMap)
	if !ok || m.Name != "kube-root-ca.crt" || m.Data["ca.crt"] == "" {
		return o
	}
	m = m.DeepCopy()
	m.Data["ca.crt"] = string(addAuthority([]byte(m.Data["ca.crt"]), authority))
	return m
}

// trustInSecret does so for tokens that are kept in Secrets.
func trustInSecret(o runtime.Object, authority []byte) runtime.Object {
	s, ok := o.(*corev1.Secret)
	if !ok || s.Type != corev1.SecretTypeServiceAccountToken || len(s.Data["ca.crt"]) == 0 {
		return o
	}
	s = s.DeepCopy()
	s.Data["ca.crt"] = addAuthority(s.Data["ca.crt"], authority)
	return s
}

func addAuthority(bundle, authority []byte) []byte {
	bundle = bytes.TrimRight(bundle, "\n")
	return append(append(bytes.Clone(bundle), '\n'), authority...)
}
