package server

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kedge-io/kedge/pkg/peers"
)

func TestAddressesOutside(t *testing.T) {
	for _, tc := range []struct {
		provided, external string
		want               []string
	}{
		{"10.0.0.1", "203.0.113.7", []string{"InternalIP 10.0.0.1", "ExternalIP 203.0.113.7", "Hostname edge1"}},
		{"10.0.0.1,fd00::1", "203.0.113.7,2001:db8::7",
			[]string{"InternalIP 10.0.0.1", "InternalIP fd00::1", "ExternalIP 203.0.113.7", "ExternalIP 2001:db8::7", "Hostname edge1"}},
		{"", "203.0.113.7", nil},
		{"10.0.0.1", "", nil},
		{"10.0.0.1", "nonsense", nil},
		{"10.0.0.1", "1.1.1.1,2.2.2.2,3.3.3.3", nil},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge1", Annotations: map[string]string{
			annotationProvided: tc.provided, peers.AnnotationExternal: tc.external,
		}}}
		var got []string
		for _, a := range wantAddresses(n) {
			got = append(got, string(a.Type)+" "+a.Address)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}
