package v1alpha1

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDeepCopySharesNothing(t *testing.T) {
	fresh := func() *AddOn {
		return &AddOn{
			TypeMeta:   metav1.TypeMeta{Kind: Kind},
			ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"k": "v"}},
			Spec:       AddOnSpec{Source: "a.yaml", Server: "s", Packaged: true},
			Status: AddOnStatus{Checksum: "c", Kinds: []string{"v1/ConfigMap"}, Objects: []ObjectRef{{Name: "o"}},
				Conditions: []metav1.Condition{{Type: ConditionReady, LastTransitionTime: metav1.Unix(7, 0)}}},
		}
	}
	original := fresh()
	copied := original.DeepCopyObject().(*AddOn)
	if !reflect.DeepEqual(original, copied) {
		t.Errorf("%+v is not %+v", copied, original)
	}
	copied.Labels["k"], copied.Status.Kinds[0], copied.Status.Objects[0].Name, copied.Status.Conditions[0].LastTransitionTime = "x", "x", "x", metav1.NewTime(time.Now())
	if !reflect.DeepEqual(original, fresh()) {
		t.Errorf("the original changed with its copy: %+v", original)
	}
	if (*AddOn)(nil).DeepCopyObject() != nil {
		t.Error("a copy of nothing is something")
	}
}
