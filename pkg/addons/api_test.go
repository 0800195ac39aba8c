package addons

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kedge-io/kedge/manifests"
	"github.com/kedge-io/kedge/pkg/apis/addons/v1alpha1"
	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/test/output"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The tests in this file run against a real API server: see site_test.go.

// lab is an add-ons component running on a folder of its own, with names and namespaces of its own.
type lab struct {
	t      *testing.T
	dir    string
	ns     string
	client *kube.Client
	log    *output.Buffer
	cfg    Config
	stop   func()
}

func newLab(t *testing.T) *lab {
	t.Helper()
	kubeconfig := siteKubeconfig(t)
	restConfig, err := kube.Config(kubeconfig, "test")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kube.NewClient(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "manifests"), client: client, log: &output.Buffer{}}
	l.ns = fmt.Sprintf("t%x", time.Now().UnixNano())
	l.cfg = Config{
		Dir: l.dir, Packaged: manifests.FS(), Server: l.ns, Kubeconfig: kubeconfig,
		Log:       slog.New(slog.NewTextHandler(l.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Variables: manifests.Variables{ClusterDNS: clusterDNS(), ClusterDomain: "cluster.local", DataDir: "/var/lib/kedge"}.Map(),
	}
	t.Cleanup(func() {
		l.halt()
		if t.Failed() {
			t.Log(l.log.String())
		}
		_ = client.Dynamic.Resource(namespaces()).Delete(context.Background(), l.ns, metav1.DeleteOptions{})
		l.forgetRecords()
	})
	return l
}

// forgetRecords removes the AddOns of this lab, so that the next one is not disturbed.
func (l *lab) forgetRecords() {
	records, err := listRecords(context.Background(), l.client)
	if err != nil {
		l.t.Log(err)
	}
	for _, r := range records {
		if r.Spec.Server == l.ns {
			_ = deleteRecord(context.Background(), l.client, r.Name)
		}
	}
}

// start runs the component until halt, and waits for its readiness.
func (l *lab) start() {
	l.t.Helper()
	a, err := New(l.cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	}
	l.await("readiness", func() error { return a.Ready(ctx) })
}

func (l *lab) halt() {
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

func (l *lab) await(what string, check func() error) {
	l.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// put writes a file as an editor does, with $NS replaced by the lab's namespace.
func (l *lab) put(rel, text string) {
	l.t.Helper()
	path := filepath.Join(l.dir, rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$NS", l.ns)), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) remove(rel string) {
	l.t.Helper()
	if err := os.Remove(filepath.Join(l.dir, rel)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) get(apiVersion, kind, namespace, name string) (*unstructured.Unstructured, error) {
	l.client.ForgetKinds()
	resource, ref, err := l.client.Resource(kube.Ref{APIVersion: apiVersion, Kind: kind, Namespace: namespace, Name: name})
	if err != nil {
		return nil, err
	}
	return resource.Get(context.Background(), ref.Name, metav1.GetOptions{})
}

// configMap waits until the ConfigMap holds the value under "key"; an empty value waits until there is no ConfigMap.
func (l *lab) configMap(name, value string) {
	l.t.Helper()
	l.await("ConfigMap "+name, func() error {
		obj, err := l.get("v1", "ConfigMap", l.ns, name)
		if value == "" {
			if err == nil && obj.GetDeletionTimestamp() == nil {
				return errors.New("still there")
			}
			return nil
		}
		if err != nil {
			return err
		}
		if got, _, _ := unstructured.NestedString(obj.Object, "data", "key"); got != value {
			return fmt.Errorf("holds %q, not %q", got, value)
		}
		return nil
	})
}

// record waits until the record of the file has the reason, and a message that contains text.
func (l *lab) record(source, reason, text string) v1alpha1.AddOn {
	l.t.Helper()
	var found v1alpha1.AddOn
	l.await("AddOn of "+source, func() error {
		records, err := listRecords(context.Background(), l.client)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.Spec.Source != source || r.Spec.Server != l.ns {
				continue
			}
			found = r
			ready := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionReady)
			if ready == nil || ready.Reason != reason || !strings.Contains(ready.Message, text) {
				return fmt.Errorf("%+v, want %s %q", ready, reason, text)
			}
			return nil
		}
		if reason == "" {
			return nil
		}
		return errors.New("no record")
	})
	return found
}

func (l *lab) noRecord(source string) {
	l.t.Helper()
	l.await("AddOn of "+source+" gone", func() error {
		records, err := listRecords(context.Background(), l.client)
		for _, r := range records {
			if r.Spec.Source == source && r.Spec.Server == l.ns {
				return fmt.Errorf("still there: %+v", r.Status)
			}
		}
		return err
	})
}

// messages waits for the Events about an add-on to hold all the reasons. kubectl describe finds them by the UID.
func (l *lab) messages(addon v1alpha1.AddOn, reasons ...string) {
	l.t.Helper()
	l.await("Events of "+addon.Name, func() error {
		events, err := l.client.Dynamic.Resource(eventsResource()).Namespace("default").List(context.Background(),
			metav1.ListOptions{FieldSelector: "involvedObject.kind=AddOn,involvedObject.uid=" + string(addon.UID)})
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, e := range events.Items {
			reason, _, _ := unstructured.NestedString(e.Object, "reason")
			seen[reason] = true
		}
		for _, reason := range reasons {
			if !seen[reason] {
				return fmt.Errorf("no %s among %v", reason, seen)
			}
		}
		return nil
	})
}
