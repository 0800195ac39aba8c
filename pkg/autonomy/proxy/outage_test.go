package proxy

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kedge-io/kedge/pkg/autonomy/cache"
	"github.com/kedge-io/kedge/pkg/autonomy/filter"
	"github.com/kedge-io/kedge/pkg/autonomy/identity"
	"github.com/kedge-io/kedge/pkg/autonomy/link"
	"github.com/kedge-io/kedge/pkg/autonomy/object"
)

// cutOff is a node API whose server cannot be reached, with some pods of its node.
func cutOff(t *testing.T, path string, pods int) *Proxy {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	l, err := link.New(link.Config{Server: "https://127.0.0.1:1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	go l.Run(t.Context()) // it is down at once
	c, err := cache.Open(cache.Config{Path: path, StoreKey: make([]byte, 32), Link: l, NodeName: "n", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	all := &object.List{Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Version: 100}
	for i := range pods {
		o, err := object.Of(all.Kind, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: podName(i), UID: types.UID("uid-" + podName(i)), ResourceVersion: "7"},
			Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "main", Image: "image"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		all.Items = append(all.Items, o)
	}
	c.Scope(cache.PodsKey("n"), true).Replace(all)
	c.Sync()
	return New(Config{NodeName: "n", Cache: c, Link: l, Log: log})
}

func podName(i int) string { return "pod-" + strconv.Itoa(i) }

// statusWrite is what the kubelet sends when a container was restarted.
func statusWrite(t *testing.T, p *Proxy, pod, restarts int) {
	t.Helper()
	body := fmt.Sprintf(`{"metadata":{"uid":"uid-%s"},"status":{"phase":"Running","containerStatuses":[{"name":"main","image":"image","imageID":"","ready":true,`+
		`"restartCount":%d,"containerID":"containerd://%064d"}]}}`, podName(pod), restarts, restarts)
	r := httptest.NewRequest(http.MethodPatch, "/api/v1/namespaces/default/pods/"+podName(pod)+"/status", strings.NewReader(body))
	r.Header.Set("Content-Type", string(types.StrategicMergePatchType))
	w := httptest.NewRecorder()
	p.serve(w, r, identity.User{Name: "system:node:n", Asker: filter.Kubelet})
	if w.Code != http.StatusOK {
		t.Fatalf("status of %s: %d %s", podName(pod), w.Code, w.Body)
	}
}

// heap is the live heap in KiB.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc >> 10)
}

// TestLongOutage writes statuses as in days without the server: 20 pods that are restarted all the time. One write for each pod waits, memory and file do
// not grow, and what is shown is the last one. KEDGE_OUTAGE_WRITES sets another number of them.
func TestLongOutage(t *testing.T) {
	const pods = 20
	writes := 10_000
	if text := os.Getenv("KEDGE_OUTAGE_WRITES"); text != "" {
		var err error
		if writes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "outage-"); err == nil { //nolint:usetesting // in memory: every write is synced
		dir = shm
		t.Cleanup(func() { _ = os.RemoveAll(shm) })
	}
	path := filepath.Join(dir, "db")
	p := cutOff(t, path, pods)
	var first, most, file int64
	for i := range writes {
		statusWrite(t, p, i%pods, i/pods+1)
		if (i+1)%(writes/10) != 0 {
			continue
		}
		now := heap()
		if first == 0 {
			first = now
		}
		most = max(most, now)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		file = max(file, info.Size())
		t.Logf("%7d writes: heap %d KiB, file %d KiB, %d held", i+1, now, info.Size()>>10, p.Held())
	}
	if p.Held() != pods {
		t.Errorf("%d writes are held for %d pods", p.Held(), pods)
	}
	if most > first+4096 || file > 8<<20 {
		t.Errorf("the heap grew from %d to %d KiB, the file to %d bytes", first, most, file)
	}
	want := (writes-1)/pods + 1
	for _, e := range p.held() {
		var status corev1.PodStatus
		if err := json.Unmarshal(e.Status, &status); err != nil || int(status.ContainerStatuses[0].RestartCount) < want-1 {
			t.Errorf("%s: %v, %+v", e.Name, err, status.ContainerStatuses)
		}
	}
	again := cutOff(t, path, 0) // what is held outlives a restart
	if again.Held() != pods || again.seq != uint64(writes) {
		t.Errorf("after a restart %d writes are held, the last is %d", again.Held(), again.seq)
	}
}

// TestViewsAreNotKept has the server answer with a table and with metadata only: neither is taken for the objects.
func TestViewsAreNotKept(t *testing.T) {
	p := cutOff(t, filepath.Join(t.TempDir(), "db"), 0)
	list := func(body string) *cache.Scope {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/default/configmaps", http.NoBody)
		q, err := p.understand(r, identity.User{Asker: filter.Pod})
		if err != nil {
			t.Fatal(err)
		}
		if out := string(p.digest(q, object.MediaJSON, []byte(body))); out != body {
			t.Errorf("%s became %s", body, out)
		}
		return p.cfg.Cache.Scope(cache.Key{Asker: filter.Pod, Resource: q.resource, Namespace: "default"}, false)
	}
	for _, body := range []string{
		`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9"},"rows":[{"cells":["a"]}]}`,
		`{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a","namespace":"default"}}]}`,
	} {
		if s := list(body); s != nil {
			t.Errorf("%s is kept: %d objects", body, s.Count())
		}
	}
	s := list(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a","namespace":"default","resourceVersion":"8"}}]}`)
	if s == nil || !s.Synced() || s.Count() != 1 {
		t.Error("the objects are not kept")
	}
}

// TestOperatorIsTold checks what is said to somebody who wants to delete a pod on a node that is cut off.
func TestOperatorIsTold(t *testing.T) {
	p := cutOff(t, filepath.Join(t.TempDir(), "db"), 1)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodDelete, "/api/v1/namespaces/default/pods/pod-0", http.NoBody)
	p.serve(w, r, identity.User{Name: identity.OperatorName, Asker: filter.Operator})
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "kedge crictl stopp $(kedge crictl pods -q --namespace default --name '^pod-0$')") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
