package helm

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containers "github.com/google/go-containerregistry/pkg/registry"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/registry"

	"github.com/kedge-io/kedge/test/lab"
)

const templates = `
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}"}
data:
  chart: "{{ .Chart.Version }}"
  greeting: "{{ .Values.greeting }}"
---
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec:
  ports: [{port: {{ .Values.port }}}]
`

// archive makes a version of the chart.
func archive(t *testing.T, version string) []byte {
	t.Helper()
	path, err := chartutil.Save(&chart.Chart{
		Metadata:  &chart.Metadata{APIVersion: "v2", Name: "hello", Version: version},
		Values:    map[string]any{"greeting": "hello", "port": 80},
		Raw:       []*chart.File{{Name: "values.yaml", Data: []byte("greeting: hello\nport: 80\n")}},
		Templates: []*chart.File{{Name: "templates/all.yaml", Data: []byte(templates)}},
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// scene is a server in the lab with a registry beside it that holds versions of a chart.
type scene struct {
	*testing.T
	lab      *lab.Lab
	s1       *lab.Node
	registry string
}

func newScene(t *testing.T, versions ...string) *scene {
	t.Helper()
	l := lab.New(t)
	s := &scene{T: t, lab: l, s1: l.AddSite("shop").AddNode("s1", lab.Server("--disable-agent"))}
	s.s1.Start()
	s.registry = net.JoinHostPort(s.s1.IP(), "5000")
	s.s1.Serve(s.registry, containers.New(containers.Logger(log.New(io.Discard, "", 0))))
	web := &http.Client{Transport: &http.Transport{DialContext: s.s1.Dial}}
	client, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptHTTPClient(web))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		if _, err := client.Push(archive(t, version), s.registry+"/charts/hello:"+version); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// put writes a file into the manifests folder, as a user does.
func (s *scene) put(name, text string) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.s1.HostPath("/var/lib/kedge/server/manifests"), name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// chart is a HelmChart of the chart in the registry.
func (s *scene) chart(version, more string) string {
	return fmt.Sprintf(`
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: web, namespace: kube-system}
spec:
  chart: oci://%s/charts/hello
  version: %s
  plainHTTP: true
  targetNamespace: shop
  createNamespace: true
  timeout: 1m
%s`, s.registry, version, more)
}

// awaitText waits until kubectl says something.
func (s *scene) awaitText(what, want string, args ...string) {
	s.Helper()
	s.lab.Await(what, 2*time.Minute, func() error {
		out, err := s.s1.TryKubectl(args...)
		if err != nil {
			return err
		}
		if !strings.Contains(out, want) {
			return errors.New("it says: " + out)
		}
		return nil
	})
}

func (s *scene) awaitData(what, want string) {
	s.Helper()
	s.awaitText(what, want, "get", "configmap", "web", "-n", "shop", "-o", "jsonpath={.data.chart}/{.data.greeting}")
}

func TestChartFromFile(t *testing.T) {
	s := newScene(t, "1.0.0", "1.1.0")
	s.s1.AwaitReady()
	s.put("web.yaml", s.chart("1.0.0", "  valuesContent: 'greeting: from the chart'\n"))
	s.awaitData("installation", "1.0.0/from the chart")
	s.awaitText("condition", "True Installed", conditions()...)

	s.put("config.yaml", "apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata: {name: web, namespace: kube-system}\nspec: {valuesContent: 'greeting: configured'}\n")
	s.awaitData("change by HelmChartConfig", "1.0.0/configured")

	s.put("web.yaml", s.chart("1.1.0", ""))
	s.awaitData("upgrade", "1.1.0/configured")
	s.awaitText("condition", "True Installed", conditions()...)

	s.put("web.yaml", s.chart("1.0.0", "  set: {port: 70000}\n"))
	s.awaitText("rollback", "False RolledBack", conditions()...)
	s.awaitData("what ran before", "1.1.0/configured")
	s.awaitText("Event", "RolledBack", "get", "events", "-n", "kube-system", "--field-selector", "involvedObject.name=web")

	s.put("web.yaml", s.chart("1.1.0", "  set: {greeting: again}\n"))
	s.awaitData("a good change after a bad one", "1.1.0/again")
	s.awaitText("condition", "True Installed", conditions()...)
	s.restart()

	if err := os.Remove(filepath.Join(s.s1.HostPath("/var/lib/kedge/server/manifests"), "web.yaml")); err != nil {
		t.Fatal(err)
	}
	s.lab.Await("removal", 2*time.Minute, func() error {
		out, err := s.s1.Run("kedge", "kubectl", "get", "helmchart,configmap,service,secret", "-A", "-o", "name")
		if err != nil {
			return err
		}
		if strings.Contains(out, "/web") || strings.Contains(out, "release.v1.web.") {
			return errors.New("still there: " + out)
		}
		return nil
	})
	if log := s.s1.Log(); strings.Contains(log, "level=ERROR") {
		t.Errorf("log:\n%s", log)
	}
}

// restart starts kedge anew, which must not touch the release.
func (s *scene) restart() {
	s.Helper()
	revision := func() string {
		return s.s1.Kubectl("get", "helmchart", "web", "-n", "kube-system", "-o", "jsonpath={.status.revision}")
	}
	before := revision()
	s.s1.Stop()
	s.s1.Start()
	s.s1.AwaitReady()
	s.inline()
	if after := revision(); after != before {
		s.Errorf("the restart made revision %s of %s", after, before)
	}
}

// inline installs a chart that is in the file itself, which cannot be wrong in a way that only the API server sees.
func (s *scene) inline() {
	s.Helper()
	content := base64.StdEncoding.EncodeToString(archive(s.T, "3.0.0"))
	s.put("inline.yaml", "apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {name: inline, namespace: kube-system}\nspec: {targetNamespace: shop, chartContent: "+content+"}\n")
	s.awaitText("inline chart", "3.0.0", "get", "configmap", "inline", "-n", "shop", "-o", "jsonpath={.data.chart}")
}

func conditions() []string {
	return []string{"get", "helmchart", "web", "-n", "kube-system", "-o", `jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}{end}`}
}
