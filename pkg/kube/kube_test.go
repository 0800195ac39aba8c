package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

func TestWhatErrorsMean(t *testing.T) {
	maps := schema.GroupResource{Resource: "configmaps"}
	kind := schema.GroupKind{Group: "example.com", Kind: "Gadget"}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"none":               {nil, ""},
		"refused connection": {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "unavailable"},
		"cut connection":     {fmt.Errorf("get: %w", io.ErrUnexpectedEOF), "unavailable"},
		"our deadline":       {fmt.Errorf("get: %w", context.DeadlineExceeded), "unavailable"},
		"starting":           {apierrors.NewServiceUnavailable("starting"), "unavailable"},
		"busy":               {apierrors.NewTooManyRequests("busy", 1), "unavailable"},
		"slow":               {apierrors.NewTimeoutError("slow", 1), "unavailable"},
		"not known yet":      {apierrors.NewUnauthorized("starting"), "unavailable"},
		"discovery fails":    {&discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{{Group: "metrics.k8s.io"}: errors.New("stale")}}, ""},
		"no kind":            {&meta.NoKindMatchError{GroupKind: kind}, "missing kind"},
		"no path":            {apierrors.NewGenericServerResponse(404, "patch", maps, "", "page not found", 0, true), "missing kind"},
		"no namespace":       {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "n"), "missing namespace"},
		"no object":          {apierrors.NewNotFound(maps, "m"), ""},
		"invalid":            {apierrors.NewInvalid(kind, "g", nil), "refused"},
		"bad request":        {apierrors.NewBadRequest("no"), "refused"},
		"unknown field":      {apierrors.NewInternalError(errors.New("failed to create typed patch object (n/m; /v1, Kind=ConfigMap): .x: field not declared in schema")), "refused"},
		"forbidden":          {apierrors.NewForbidden(maps, "m", errors.New("quota")), ""},
		"webhook is away":    {apierrors.NewInternalError(errors.New("failed calling webhook")), ""},
	} {
		got := ""
		for word, is := range map[string]bool{"unavailable": Unavailable(tc.err), "missing kind": MissingKind(tc.err),
			"missing namespace": MissingNamespace(tc.err), "refused": Refused(tc.err)} {
			if is {
				got += word
			}
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestRef(t *testing.T) {
	ref := Ref{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "n", Name: "d"}
	if ref.String() != "Deployment n/d" || ref.GroupKind() != (schema.GroupKind{Group: "apps", Kind: "Deployment"}) {
		t.Errorf("%s %v", ref, ref.GroupKind())
	}
	if got := (Ref{APIVersion: "v1", Kind: "Node", Name: "n"}).String(); got != "Node n" {
		t.Error(got)
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	path, cert := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "pem")
	if _, err := Config(path, "addons"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443'}}]\n" +
		"users: [{name: u, user: {client-certificate: pem, client-key: pem}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
	for name, data := range map[string]string{path: text, cert: "not read here"} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := Config(path, "addons")
	if err != nil {
		t.Fatal(err)
	}
	// Files, not their content: client-go reloads them when certificates are renewed.
	if cfg.CertFile != cert || cfg.CertData != nil || cfg.QPS >= 0 || cfg.UserAgent != "kedge/addons" {
		t.Errorf("%+v", cfg)
	}
}
