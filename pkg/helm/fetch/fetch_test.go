package fetch

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	containers "github.com/google/go-containerregistry/pkg/registry"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/registry"

	v1 "github.com/kedge-io/kedge/pkg/apis/helm/v1"
)

// archiveOf makes a chart with nothing in it.
func archiveOf(t *testing.T, version string) []byte {
	t.Helper()
	path, err := chartutil.Save(&chart.Chart{Metadata: &chart.Metadata{APIVersion: "v2", Name: "hello", Version: version}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fetchVersion(t *testing.T, spec v1.HelmChartSpec, a Access) string {
	t.Helper()
	c, err := Chart(context.Background(), spec, a)
	if err != nil {
		return "error: " + err.Error()
	}
	return c.Metadata.Version
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) && (!strings.HasPrefix(want, "error") || !strings.Contains(got, strings.TrimPrefix(want, "error "))) {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFetchFromRegistry(t *testing.T) {
	server := httptest.NewServer(needLogin(containers.New(containers.Logger(log.New(io.Discard, "", 0)))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	client, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptBasicAuth("ann", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "1.1.0", "2.0.0"} {
		if _, err := client.Push(archiveOf(t, version), host+"/charts/hello:"+version); err != nil {
			t.Fatal(err)
		}
	}
	docker, err := DockerLogins(fmt.Appendf(nil, `{"auths":{"https://%s/v2/":{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("ann:secret"))))
	if err != nil {
		t.Fatal(err)
	}
	ann := Access{Plain: true, Username: "ann", Password: "secret"}
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "oci://" + host + "/charts/hello"}, ann), "2.0.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "oci://" + host + "/charts/hello", Version: "~1"}, Access{Plain: true, Docker: docker}), "1.1.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "oci://" + host + "/charts/hello:1.0.0"}, ann), "1.0.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Repo: "oci://" + host + "/charts", Chart: "hello", Version: "1.0.0"}, ann), "1.0.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "oci://" + host + "/charts/hello"}, Access{Plain: true}), "error credential")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "oci://" + host + "/charts/hello", Version: ">9"}, ann), "error >9")
}

func needLogin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ann" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestFetchFromRepository(t *testing.T) {
	files := map[string][]byte{"/hello-1.0.0.tgz": archiveOf(t, "1.0.0"), "/hello-1.2.0.tgz": archiveOf(t, "1.2.0")}
	var stranger *httptest.Server
	files["/index.yaml"] = []byte("apiVersion: v1\nentries:\n  hello:\n  - {name: hello, version: 1.0.0, urls: [hello-1.0.0.tgz]}\n  - {name: hello, version: 1.2.0, urls: [hello-1.2.0.tgz]}\n")
	mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(files[r.URL.Path]) })
	server := httptest.NewTLSServer(needLogin(mux))
	defer server.Close()
	stranger = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, sent := r.BasicAuth(); sent {
			t.Error("credentials went to another host")
		}
		_, _ = w.Write(files["/hello-1.0.0.tgz"])
	}))
	defer stranger.Close()
	files["/away/index.yaml"] = fmt.Appendf(nil, "apiVersion: v1\nentries:\n  hello:\n  - {name: hello, version: 1.0.0, urls: [%s/hello.tgz]}\n", stranger.URL)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	ann := Access{CA: ca, Username: "ann", Password: "secret"}
	spec := v1.HelmChartSpec{Repo: server.URL, Chart: "hello"}
	expect(t, fetchVersion(t, spec, ann), "1.2.0")
	expect(t, fetchVersion(t, spec, Access{Insecure: true, Username: "ann", Password: "secret"}), "1.2.0")
	expect(t, fetchVersion(t, spec, Access{Username: "ann", Password: "secret"}), "error certificate")
	expect(t, fetchVersion(t, spec, Access{CA: ca}), "error 401")
	expect(t, fetchVersion(t, spec, Access{CA: "no"}), "error repoCA")
	spec.Version = "1.0.0"
	expect(t, fetchVersion(t, spec, ann), "1.0.0")
	spec.Repo += "/away/"
	expect(t, fetchVersion(t, spec, ann), "1.0.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: server.URL + "/hello-1.0.0.tgz"}, ann), "1.0.0")
}

func TestFetchRefuses(t *testing.T) {
	inline := base64.StdEncoding.EncodeToString(archiveOf(t, "3.0.0"))
	expect(t, fetchVersion(t, v1.HelmChartSpec{ChartContent: inline[:40] + "\n" + inline[40:], Chart: "ignored"}, Access{}), "3.0.0")
	expect(t, fetchVersion(t, v1.HelmChartSpec{}, Access{}), "error chart: empty")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "/etc/passwd"}, Access{}), "error not an oci://")
	expect(t, fetchVersion(t, v1.HelmChartSpec{Chart: "../x", Repo: "https://example.com"}, Access{}), "error not the name of a chart")
	expect(t, fetchVersion(t, v1.HelmChartSpec{ChartContent: "***"}, Access{}), "error not base64")
	if _, err := DockerLogins([]byte("x")); err == nil {
		t.Error("text was taken for credentials")
	}
}
