package conversion

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// lamps is a kind that spells a field in two ways.
func lamps() []Kind {
	rename := func(content map[string]any, _, to string) error {
		spec, _ := content["spec"].(map[string]any)
		if spec["colour"] == "none" {
			return errors.New("spec.colour: none is no colour")
		}
		from, into := "colour", "color"
		if to == "v1" {
			from, into = into, from
		}
		if v, ok := spec[from]; ok {
			spec[into] = v
			delete(spec, from)
		}
		return nil
	}
	check := func(obj, old *unstructured.Unstructured) Verdict {
		if old != nil {
			return Verdict{Warnings: []string{"was " + old.GetName()}}
		}
		return Verdict{Errors: field.ErrorList{field.Required(field.NewPath("spec", "colour"), "say which")}}
	}
	return []Kind{{Group: "example.com", Kind: "Lamp", Versions: []string{"v1", "v2"}, Convert: rename, Check: check}}
}

func registry(t *testing.T) *Registry {
	t.Helper()
	r, err := NewRegistry(lamps(), []Kind{{Group: "example.com", Kind: "Bulb", Versions: []string{"v1"}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func lamp(version, key, value string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/" + version, "kind": "Lamp",
		"metadata": map[string]any{"name": "l"}, "spec": map[string]any{key: value, "watts": int64(5)}}}
}

func TestConvert(t *testing.T) {
	r := registry(t)
	in := lamp("v1", "colour", "red")
	out, err := r.Convert(in, "example.com/v2")
	if err != nil || out.GetAPIVersion() != "example.com/v2" || out.Object["spec"].(map[string]any)["color"] != "red" {
		t.Errorf("%v, %v", out, err)
	}
	if in.Object["spec"].(map[string]any)["colour"] != "red" {
		t.Error("the original changed")
	}
	for want, tc := range map[string]struct {
		obj *unstructured.Unstructured
		to  string
	}{
		"spec.colour: none is no colour":          {lamp("v1", "colour", "none"), "example.com/v2"},
		"its versions are [v1 v2]":                {lamp("v1", "colour", "red"), "example.com/v3"},
		"cannot be converted from example.com/v1": {lamp("v1", "colour", "red"), "example.org/v2"},
		"does not know kind Door.example.com": {&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": "Door"}}, "example.com/v2"},
	} {
		if _, err := r.Convert(tc.obj, tc.to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestRegistryRefusesHalfKinds(t *testing.T) {
	if _, err := NewRegistry(lamps(), lamps()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
	if _, err := NewRegistry([]Kind{{Kind: "X", Versions: []string{"v1", "v2"}}}); err == nil || !strings.Contains(err.Error(), "no conversion") {
		t.Error(err)
	}
	if r := registry(t); !r.Knows(schema.GroupKind{Group: "example.com", Kind: "Bulb"}) || r.Knows(schema.GroupKind{Kind: "Bulb"}) {
		t.Error("knows the wrong kinds")
	}
}

func TestCheck(t *testing.T) {
	r := registry(t)
	if v := r.Check(lamp("v1", "a", "b"), nil); len(v.Errors) != 1 || v.Errors[0].Field != "spec.colour" {
		t.Errorf("%+v", v)
	}
	if v := r.Check(lamp("v1", "a", "b"), lamp("v1", "a", "b")); len(v.Errors) != 0 || v.Warnings[0] != "was l" {
		t.Errorf("%+v", v)
	}
	bulb := lamp("v1", "a", "b")
	bulb.SetKind("Bulb")
	if v := r.Check(bulb, nil); v.Errors != nil || v.Warnings != nil {
		t.Errorf("%+v", v)
	}
}

// roundTrip sends objects through the transport as the API server does.
func roundTrip(t *testing.T, to string, objects ...*unstructured.Unstructured) *apiextensionsv1.ConversionResponse {
	t.Helper()
	review := apiextensionsv1.ConversionReview{TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "ConversionReview"},
		Request: &apiextensionsv1.ConversionRequest{UID: "u", DesiredAPIVersion: to}}
	for _, o := range objects {
		review.Request.Objects = append(review.Request.Objects, runtime.RawExtension{Object: o})
	}
	data, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodPost, "https://"+Host+"/", strings.NewReader(string(data)))
	answer, err := (&http.Client{Transport: registry(t)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var out apiextensionsv1.ConversionReview
	if data, err = io.ReadAll(answer.Body); err != nil || json.Unmarshal(data, &out) != nil || out.Kind != "ConversionReview" || out.Request != nil {
		t.Fatalf("%s, %v", data, err)
	}
	return out.Response
}

func TestReview(t *testing.T) {
	got := roundTrip(t, "example.com/v2", lamp("v1", "colour", "red"), lamp("v1", "colour", "blue"))
	if got.UID != "u" || got.Result.Status != "Success" || len(got.ConvertedObjects) != 2 ||
		!strings.Contains(string(got.ConvertedObjects[1].Raw), `"spec":{"color":"blue","watts":5}`) {
		t.Errorf("%+v", got)
	}
	got = roundTrip(t, "example.com/v2", lamp("v1", "colour", "red"), lamp("v1", "colour", "none"))
	if got.Result.Status != "Failure" || !strings.Contains(got.Result.Message, "spec.colour") || got.ConvertedObjects != nil {
		t.Errorf("%+v", got)
	}
	req, _ := http.NewRequest(http.MethodPost, "https://"+Host+"/", strings.NewReader("{}"))
	if _, err := registry(t).RoundTrip(req); err == nil {
		t.Error("a body that is no review was taken")
	}
}
