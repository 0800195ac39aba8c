package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

func pod() *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "default", UID: "1", ResourceVersion: "7", Labels: map[string]string{"a": "b"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "somebody"}},
		},
		Spec:   corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Image: "image"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// upstream writes as the API server does.
func upstream(t *testing.T, obj runtime.Object, proto bool) (contentType string, data []byte) {
	t.Helper()
	var out bytes.Buffer
	if !proto {
		if err := json.NewEncoder(&out).Encode(obj); err != nil {
			t.Fatal(err)
		}
		return MediaJSON, out.Bytes()
	}
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(obj, &out); err != nil {
		t.Fatal(err)
	}
	return MediaProto, out.Bytes()
}

func TestObjectsComeThrough(t *testing.T) {
	for _, in := range []bool{true, false} {
		o, err := Read(upstream(t, pod(), in))
		if err != nil || o.Key() != "default/p" || o.Version != 7 || o.UID != "1" {
			t.Fatalf("%+v, %v", o, err)
		}
		if bytes.Contains(o.Raw, []byte("somebody")) {
			t.Error("the managers of fields are kept")
		}
		for _, out := range []bool{true, false} {
			data, err := Form{Proto: out}.Encode(o)
			if err != nil {
				t.Fatal(err)
			}
			decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(data, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := decoded.(*corev1.Pod); got.Spec.Containers[0].Image != "image" || got.Labels["a"] != "b" || got.Status.Phase != corev1.PodRunning {
				t.Errorf("from proto %v to proto %v: %+v", in, out, got)
			}
		}
	}
}

func TestListsComeThrough(t *testing.T) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "9", Continue: "more"}}
	list.Items = []corev1.Pod{*pod(), *pod()}
	list.Items[1].TypeMeta, list.Items[1].Name = metav1.TypeMeta{}, "q"
	for _, in := range []bool{true, false} {
		l, err := ReadList(upstream(t, list, in))
		if err != nil || l.Kind.Kind != "Pod" || l.Version != 9 || l.Continue != "more" || len(l.Items) != 2 || l.Items[1].Name != "q" {
			t.Fatalf("%+v, %v", l, err)
		}
		for _, form := range []Form{{Proto: true}, {}, {Partial: true}} {
			data, err := form.EncodeList(l)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ReadList(form.ContentType(false), data)
			if err != nil || len(again.Items) != 2 || again.Items[0].UID != "1" || again.Version != 9 {
				t.Errorf("%+v: %+v, %v", form, again, err)
			}
		}
	}
	l, err := ReadList(upstream(t, list, true))
	if err != nil {
		t.Fatal(err)
	}
	var partial metav1.PartialObjectMetadataList
	if data, err := (Form{Proto: true, Partial: true}).EncodeList(l); err != nil {
		t.Error(err)
	} else if _, raw, err := open(data); err != nil || partial.Unmarshal(raw) != nil || len(partial.Items) != 2 || partial.Items[1].Name != "q" {
		t.Errorf("metadata only: %+v, %v", partial, err)
	}
	if _, err := ReadList(upstream(t, pod(), true)); err == nil {
		t.Error("a pod was taken for a list")
	}
}

func TestKindsWithoutProtobuf(t *testing.T) {
	const in = `{"apiVersion":"example.org/v1","kind":"Thing","metadata":{"name":"x","resourceVersion":"3"},"spec":{"size":1}}`
	o, err := Read(MediaJSON, []byte(in))
	if err != nil || o.Name != "x" || o.Version != 3 {
		t.Fatalf("%+v, %v", o, err)
	}
	if form := ChooseForm(MediaProto+","+MediaJSON, o.Kind); form.Proto {
		t.Error("protobuf was chosen")
	}
	l, err := ReadList(MediaJSON, []byte(`{"apiVersion":"example.org/v1","kind":"ThingList","metadata":{"resourceVersion":"4"},"items":[`+in+`]}`))
	if err != nil || len(l.Items) != 1 || l.Items[0].Kind.Kind != "Thing" {
		t.Fatalf("%+v, %v", l, err)
	}
}

func TestEventsComeThrough(t *testing.T) {
	o, err := Read(upstream(t, pod(), true))
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []Form{{Proto: true}, {}} {
		var stream bytes.Buffer
		mark, err := Bookmark(o.Kind, 12, true)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(form.WriteEvent(&stream, watch.Added, o), form.WriteEvent(&stream, watch.Bookmark, mark),
			form.WriteError(&stream, apierrors.NewResourceExpired("too old").Status()))
		if err != nil {
			t.Fatal(err)
		}
		r := NewEventReader(form.ContentType(true), &stream)
		if e, err := r.Next(); err != nil || e.Type != watch.Added || e.Object.Name != "p" {
			t.Errorf("%+v: %+v, %v", form, e, err)
		}
		if e, err := r.Next(); err != nil || e.Type != watch.Bookmark || !e.InitialEnd || e.Object.Version != 12 {
			t.Errorf("%+v: %+v, %v", form, e, err)
		}
		if _, err := r.Next(); !apierrors.IsResourceExpired(err) {
			t.Errorf("%+v: the error is %v", form, err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%+v: the end is %v", form, err)
		}
	}
}

func TestChooseForm(t *testing.T) {
	kind := corev1.SchemeGroupVersion.WithKind("Pod")
	for accept, want := range map[string]Form{
		"": {}, "*/*": {}, MediaJSON: {}, MediaProto + "," + MediaJSON: {Proto: true}, MediaJSON + "," + MediaProto: {},
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json":                                        {},
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json": {Proto: true, Partial: true},
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1":                                         {Partial: true},
	} {
		if got := ChooseForm(accept, kind); got != want {
			t.Errorf("%q: %+v", accept, got)
		}
	}
}

func TestDamagedAnswersAreErrors(t *testing.T) {
	_, good := upstream(t, pod(), true)
	for n := range good {
		_, _ = Read(MediaProto, good[:n]) // must not panic
	}
	for _, bad := range []string{"", "k8s", "k8s\x00\xff\xff", "{", `{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"x"}}`} {
		if _, err := Read(MediaProto, []byte(bad)); err == nil {
			t.Errorf("protobuf %q was taken", bad)
		}
		if _, err := Read(MediaJSON, []byte(bad)); err == nil {
			t.Errorf("JSON %q was taken", bad)
		}
	}
	if err := ReadError("text/plain", []byte(strings.Repeat("no ", 200)), 502); apierrors.ReasonForError(err) == "" {
		t.Errorf("a plain answer became %v", err)
	}
	_, forbidden := upstream(t, &metav1.Status{Status: "Failure", Code: 403, Reason: metav1.StatusReasonForbidden}, false)
	if err := ReadError(MediaJSON, forbidden, 403); !apierrors.IsForbidden(err) {
		t.Errorf("forbidden became %v", err)
	}
	if _, err := ParseVersion("-1"); err == nil {
		t.Error("a negative version was taken")
	}
}
