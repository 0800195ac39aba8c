package policy

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kedge-io/kedge/pkg/network/policy/compile"
)

func TestSlimPod(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	ports := func(name string, number int32) []corev1.ContainerPort {
		return []corev1.ContainerPort{{Name: name, ContainerPort: number, Protocol: "UDP"}, {ContainerPort: 1}}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "mirror", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{staticUID: "static", "large": "x"}},
		Spec: corev1.PodSpec{NodeName: "n1", InitContainers: []corev1.Container{{Ports: ports("once", 2)}, {Ports: ports("side", 3), RestartPolicy: &always}},
			Containers: []corev1.Container{{Ports: ports("main", 4)}}},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "::ffff:10.42.0.2"}, {IP: "fd42::2"}, {IP: ""}}},
	}
	once, err := slimPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := once.(*slimmed)
	if !ok {
		t.Fatalf("%T", once)
	}
	want := compile.Pod{Namespace: "n", Name: "p", UIDs: []string{"mirror", "static"}, Labels: map[string]string{"a": "b"}, Node: "n1",
		Ports: []compile.Port{{Name: "side", Protocol: "UDP", Number: 3}, {Name: "main", Protocol: "UDP", Number: 4}}}
	if len(got.pod.IPs) != 2 || got.pod.IPs[0].String() != "10.42.0.2" {
		t.Errorf("addresses %v", got.pod.IPs)
	}
	got.pod.IPs = nil
	if !reflect.DeepEqual(got.pod, want) {
		t.Errorf("%+v\nwant %+v", got.pod, want)
	}
	if key, err := cache.MetaNamespaceKeyFunc(got); err != nil || key != "n/p" {
		t.Errorf("the store cannot hold it: %q, %v", key, err)
	}
	if twice, err := slimPod(once); err != nil || twice != once {
		t.Errorf("what was slimmed is slimmed again: %v, %v", twice, err)
	}
	pod.Spec.HostNetwork = true
	if o, err := slimPod(pod); err != nil || !o.(*slimmed).hostNetwork {
		t.Errorf("host network: %+v, %v", o, err)
	}
}
