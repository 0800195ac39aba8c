package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
)

// staticUID is the annotation with the UID under which the kubelet knows a static pod.
const staticUID = "kubernetes.io/config.hash"

// slimmed is what is kept of a pod. Its metadata is what the store needs: name, namespace and version.
type slimmed struct {
	metav1.ObjectMeta
	pod         compile.Pod
	hostNetwork bool
}

// slimPod drops what no rule depends on before a pod is kept. It is also handed what it has made.
func slimPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	s := &slimmed{
		ObjectMeta:  metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, ResourceVersion: p.ResourceVersion},
		hostNetwork: p.Spec.HostNetwork,
	}
	if s.hostNetwork {
		return s, nil
	}
	s.pod = compile.Pod{Namespace: p.Namespace, Name: p.Name, UIDs: []string{string(p.UID)}, Labels: p.Labels, Node: p.Spec.NodeName, Ports: namedPorts(p)}
	if uid := p.Annotations[staticUID]; uid != "" {
		s.pod.UIDs = append(s.pod.UIDs, uid)
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			s.pod.IPs = append(s.pod.IPs, a.Unmap())
		}
	}
	return s, nil
}

// namedPorts lists the ports with a name of the containers that run along with the pod.
func namedPorts(p *corev1.Pod) []compile.Port {
	var out []compile.Port
	add := func(c corev1.Container) {
		for _, port := range c.Ports {
			if port.Name != "" {
				out = append(out, compile.Port{Name: port.Name, Protocol: string(port.Protocol), Number: port.ContainerPort})
			}
		}
	}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for _, c := range p.Spec.Containers {
		add(c)
	}
	return out
}

// slimNamespace keeps name and labels.
func slimNamespace(o any) (any, error) {
	n, ok := o.(*corev1.Namespace)
	if !ok {
		return o, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, ResourceVersion: n.ResourceVersion}}, nil
}

// slimPolicy drops what clients have noted on it.
func slimPolicy(o any) (any, error) {
	if p, ok := o.(*networkingv1.NetworkPolicy); ok {
		p.ManagedFields, p.Annotations = nil, nil
	}
	return o, nil
}
