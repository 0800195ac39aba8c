package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestLookup(t *testing.T) {
	const object = `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "name": "there"}}`
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.RequestURI() {
		case "/api/v1/namespaces/n/configmaps/there":
			fmt.Fprint(w, object)
		case "/api/v1/namespaces/n/configmaps?resourceVersion=0":
			fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "ConfigMapList", "items": [%s]}`, object)
		case "/api/v1/namespaces/n/configmaps/gone":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"apiVersion": "v1", "kind": "Status", "reason": "NotFound", "code": 404}`)
		default:
			t.Errorf("asked for %s", r.URL.RequestURI())
		}
	}))
	defer api.Close()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	l := NewLookup(path, "test") // the file is read at the first question
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: '" + api.URL + "'}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	maps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	for name, want := range map[string]string{"there": "there", "gone": "", "": ""} {
		obj, err := l.Get(maps, "n", name)
		got := ""
		if obj != nil {
			got = obj.GetName()
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	if all, err := l.List(maps, "n"); err != nil || len(all) != 1 || all[0].GetName() != "there" {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := NewLookup(path+"x", "test").Get(maps, "n", "there"); err == nil {
		t.Error("an object without a kubeconfig")
	}
}
