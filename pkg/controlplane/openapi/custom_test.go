package openapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/server/mux"
)

const customGroup = "apis/example.com/v1"

// definition is that of a kind with one field of the given name.
func definition(plural, kind, field string, generation int64) apiextensionsv1.CustomResourceDefinition {
	schema := &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{field: {Type: "string"}}}
	d := apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".example.com", UID: types.UID(plural), Generation: generation},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind, ListKind: kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: schema}},
				{Name: "v1alpha1", Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: schema}},
			},
		},
	}
	d.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}
	return d
}

// store is what the server holds, and how often it was read.
type store struct {
	definitions []apiextensionsv1.CustomResourceDefinition
	err         error
	reads       int
}

func (s *store) list(context.Context) ([]apiextensionsv1.CustomResourceDefinition, error) {
	s.reads++
	return s.definitions, s.err
}

func customMux(t *testing.T, s *store) (*Custom, *mux.PathRecorderMux) {
	custom, m := NewCustom(s.list), mux.NewPathRecorderMux("m")
	cfg := config(t, "1")
	cfg.V2, cfg.Custom = nil, custom
	Install(cfg, m)
	return custom, m
}

func TestCustomGroupFollowsItsDefinitions(t *testing.T) {
	pending := definition("later", "Later", "time", 1)
	pending.Status.Conditions = nil
	s := &store{definitions: []apiextensionsv1.CustomResourceDefinition{
		definition("boats", "Boat", "keel", 1), definition("ships", "Ship", "mast", 1), pending,
	}}
	custom, m := customMux(t, s)
	first := addressOf(t, m, customGroup)
	document := body(t, get(m, first))
	for _, want := range []string{"/apis/example.com/v1/namespaces/{namespace}/boats", "keel", "mast"} {
		if !strings.Contains(document, want) {
			t.Errorf("the document has no %q", want)
		}
	}
	if strings.Contains(document, "Later") {
		t.Error("a definition that is not established is in the document")
	}
	if at := addressOf(t, m, "apis/example.com/v1alpha1"); at != "" {
		t.Errorf("a version that is not served is at %s", at)
	}

	s.definitions[0] = definition("boats", "Boat", "anchor", 2)
	if again := addressOf(t, m, customGroup); again != first {
		t.Errorf("the address changed to %s before the definitions were said to have", again)
	}
	custom.Changed()
	second := addressOf(t, m, customGroup)
	if r := get(m, first); r.StatusCode != http.StatusMovedPermanently || r.Header.Get("Location") != second || second == first {
		t.Errorf("the address of before: %s to %s, want %s", r.Status, r.Header.Get("Location"), second)
	}
	if document := body(t, get(m, second)); !strings.Contains(document, "anchor") || strings.Contains(document, "keel") {
		t.Error("the document is not that of the new definition")
	}

	s.definitions = nil
	custom.Changed()
	if at := addressOf(t, m, customGroup); at != "" {
		t.Errorf("a group without definitions is at %s", at)
	}
	if r := get(m, second); r.StatusCode != http.StatusNotFound {
		t.Errorf("its document: %s", r.Status)
	}
}

// TestCustomReadsOnce checks that the index, which is asked for each second, costs nothing while nothing changes.
func TestCustomReadsOnce(t *testing.T) {
	s := &store{definitions: []apiextensionsv1.CustomResourceDefinition{definition("boats", "Boat", "keel", 1)}}
	_, m := customMux(t, s)
	for range 3 {
		addressOf(t, m, customGroup)
	}
	if s.reads != 1 {
		t.Errorf("the definitions were read %d times", s.reads)
	}
}

func TestCustomUnreadable(t *testing.T) {
	s := &store{err: errors.New("not yet")}
	custom, m := customMux(t, s)
	if addressOf(t, m, group) == "" || addressOf(t, m, customGroup) != "" {
		t.Error("want the built-in groups alone while the definitions cannot be read")
	}
	s.definitions, s.err = []apiextensionsv1.CustomResourceDefinition{definition("boats", "Boat", "keel", 1)}, nil
	at := addressOf(t, m, customGroup)
	if at == "" {
		t.Error("the definitions were not read again")
	}
	s.err = errors.New("away")
	custom.Changed()
	if addressOf(t, m, customGroup) != at {
		t.Error("want what was known before")
	}
	if r := get(m, at); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a document whose definitions cannot be read: %s", r.Status)
	}
}
