package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// liveNetns is the path of a namespace that exists.
const liveNetns = "/proc/self/ns/net"

// deadNetns is the path of a namespace that is gone.
const deadNetns = "/run/netns/gone"

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "net"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ranges(t *testing.T, subnets ...string) []RangeSet {
	t.Helper()
	var sets []RangeSet
	for _, subnet := range subnets {
		sets = append(sets, RangeSet{{Subnet: netip.MustParsePrefix(subnet)}})
	}
	if err := complete(sets); err != nil {
		t.Fatal(err)
	}
	return sets
}

func pod(uid string) Key { return Key{Namespace: "default", Name: "web", UID: uid} }

func request(t *testing.T, uid, netns string, subnets ...string) Request {
	t.Helper()
	return Request{Owner: Owner{Pod: pod(uid)}, Interface: "eth0",
		Sandbox: Sandbox{ID: "sandbox-" + uid, Netns: netns}, Ranges: ranges(t, subnets...)}
}

func allocate(t *testing.T, s *Store, req Request) string {
	t.Helper()
	addresses, err := s.Allocate(req)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, a := range addresses {
		texts = append(texts, a.Prefix.String())
	}
	return strings.Join(texts, " ")
}

func TestAddressStaysWithPod(t *testing.T) {
	s := open(t)
	req := request(t, "a", deadNetns, "10.42.0.0/24", "fd00:42::/64")
	first := allocate(t, s, req)
	if first != "10.42.0.2/24 fd00:42::2/64" {
		t.Errorf("first address is %s", first)
	}
	if err := s.Delete(req.Owner, "eth0"); err != nil {
		t.Fatal(err)
	}
	allocate(t, s, request(t, "b", deadNetns, "10.42.0.0/24", "fd00:42::/64"))
	req.Sandbox.ID = "second sandbox"
	again, err := Open(s.dir) // as after a reboot
	if err != nil {
		t.Fatal(err)
	}
	if got := allocate(t, again, req); got != first {
		t.Errorf("the pod's new sandbox got %s, want %s", got, first)
	}
	recreated := request(t, "c", deadNetns, "10.42.0.0/24", "fd00:42::/64")
	if got := allocate(t, s, recreated); got == first {
		t.Error("a pod with another UID got the address of the old one")
	}
}

func TestContainerWithoutPod(t *testing.T) {
	s := open(t)
	req := request(t, "", deadNetns, "10.42.0.0/29")
	req.Owner = Owner{Container: "abc"}
	first := allocate(t, s, req)
	if err := s.Delete(req.Owner, "eth0"); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 0 {
		t.Errorf("after its deletion a container still holds %v, %v", all, err)
	}
	req.Owner.Container = "def"
	if got := allocate(t, s, req); got == first {
		t.Error("a released address was given out again at once")
	}
}

func TestRetain(t *testing.T) {
	s := open(t)
	gone := allocate(t, s, request(t, "gone", deadNetns, "10.42.0.0/24"))
	allocate(t, s, request(t, "stays", deadNetns, "10.42.0.0/24"))
	allocate(t, s, request(t, "runs", liveNetns, "10.42.0.0/24"))
	released, err := s.Retain([]Key{pod("stays")})
	if err != nil || released != 1 {
		t.Fatalf("released %d, %v", released, err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("left: %v, %v", all, err)
	}
	if got := allocate(t, s, request(t, "gone", deadNetns, "10.42.0.0/24")); got != gone {
		t.Errorf("a pod that came back got %s, want %s", got, gone)
	}
	if err := s.Release(pod("gone")); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(pod("runs")); err != nil {
		t.Fatal(err)
	}
	if all, err = s.List(); err != nil || len(all) != 2 {
		t.Fatalf("left: %v, %v", all, err)
	}
}

func TestNextFitAndGrace(t *testing.T) {
	s := open(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	subnet := "10.42.0.0/29" // .2 to .6 for pods
	for i := range 5 {
		want := fmt.Sprintf("10.42.0.%d/29", i+2)
		if got := allocate(t, s, request(t, fmt.Sprint("p", i), deadNetns, subnet)); got != want {
			t.Errorf("pod %d got %s, want %s", i, got, want)
		}
	}
	for _, uid := range []string{"p1", "p3"} { // .3, then .5
		now = now.Add(time.Second)
		if err := s.Release(pod(uid)); err != nil {
			t.Fatal(err)
		}
	}
	if got := allocate(t, s, request(t, "q", deadNetns, subnet)); got != "10.42.0.3/29" {
		t.Errorf("with all others resting, a new pod got %s, not the one that rested longest", got)
	}
	now = now.Add(grace)
	if got := allocate(t, s, request(t, "r", deadNetns, subnet)); got != "10.42.0.5/29" {
		t.Errorf("after the grace a new pod got %s", got)
	}
	left, err := os.ReadDir(filepath.Join(s.dir, "released"))
	if err != nil || len(left) != 0 {
		t.Errorf("released entries left: %v, %v", left, err)
	}
}

func TestExhausted(t *testing.T) {
	s := open(t)
	pods := t.TempDir()
	for i := range 5 {
		netns := deadNetns
		if i == 2 {
			netns = liveNetns
		}
		uid := fmt.Sprint("p", i)
		if err := os.Mkdir(filepath.Join(pods, uid), 0o755); err != nil {
			t.Fatal(err)
		}
		allocate(t, s, request(t, uid, netns, "10.42.0.0/29"))
	}
	req := request(t, "new", deadNetns, "10.42.0.0/29")
	req.PodsDir = pods
	_, err := s.Allocate(req)
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "all 5 are held by pods, 4 of them without a running sandbox") {
		t.Fatalf("error is %v", err)
	}
	for _, uid := range []string{"p2", "p4"} { // p2's sandbox still runs
		if err := os.Remove(filepath.Join(pods, uid)); err != nil {
			t.Fatal(err)
		}
	}
	if got := allocate(t, s, req); got != "10.42.0.6/29" {
		t.Errorf("got %s, want the address of the pod that is gone", got)
	}
}

func TestRangesChange(t *testing.T) {
	s := open(t)
	old := allocate(t, s, request(t, "a", deadNetns, "10.42.0.0/24"))
	if got := allocate(t, s, request(t, "a", deadNetns, "10.42.0.0/24", "fd00::/64")); got != old+" fd00::2/64" {
		t.Errorf("with a second family the pod has %s", got)
	}
	if got := allocate(t, s, request(t, "a", deadNetns, "10.43.0.0/24")); got != "10.43.0.2/24" {
		t.Errorf("in another network the pod has %s", got)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 {
		t.Errorf("entries: %v, %v", all, err)
	}
}

func TestDamagedRecordKeepsAddress(t *testing.T) {
	s := open(t)
	first := allocate(t, s, request(t, "a", deadNetns, "10.42.0.0/24"))
	files, err := filepath.Glob(filepath.Join(s.dir, "held", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for _, damage := range []string{"", "{", "\x00\x00\x00", `{"sandboxes":7}`} {
		if err := os.WriteFile(files[0], []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "last"), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := allocate(t, s, request(t, "b"+fmt.Sprint(len(damage)), deadNetns, "10.42.0.0/24")); got == first {
			t.Errorf("damage %q: the address was given to another pod", damage)
		}
		if got := allocate(t, s, request(t, "a", deadNetns, "10.42.0.0/24")); got != first {
			t.Errorf("damage %q: the pod got %s, want %s", damage, got, first)
		}
	}
}

func TestLeftoversOfKilledProcess(t *testing.T) {
	s := open(t)
	for _, name := range []string{".new", ".new2"} {
		if err := os.WriteFile(filepath.Join(s.dir, "held", name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allocate(t, s, request(t, "a", deadNetns, "10.42.0.0/24"))
	files, err := os.ReadDir(filepath.Join(s.dir, "held"))
	if err != nil || len(files) != 1 {
		t.Errorf("files: %v, %v", files, err)
	}
}

func TestCollect(t *testing.T) {
	s := open(t)
	allocate(t, s, request(t, "a", liveNetns, "10.42.0.0/24"))
	lone := request(t, "", liveNetns, "10.42.0.0/24")
	lone.Owner = Owner{Container: "abc"}
	allocate(t, s, lone)
	if err := s.Collect(func(id, iface string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || len(all[0].Sandboxes) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

func TestGoroutinesInParallel(t *testing.T) {
	s := open(t)
	reqs := make([]Request, 100)
	for i := range reqs {
		reqs[i] = request(t, fmt.Sprint("p", i), liveNetns, "10.42.0.0/24", "fd00::/64")
	}
	var mu sync.Mutex
	seen := map[netip.Prefix]int{}
	var workers sync.WaitGroup
	for i := range reqs {
		workers.Go(func() {
			addresses, err := s.Allocate(reqs[i])
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, a := range addresses {
				seen[a.Prefix]++
			}
		})
	}
	workers.Wait()
	if len(seen) != 200 {
		t.Errorf("100 pods got %d different addresses, want 200", len(seen))
	}
}

func TestBadRequests(t *testing.T) {
	s := open(t)
	for name, spoil := range map[string]func(*Request){
		"no owner":      func(r *Request) { r.Owner = Owner{} },
		"path in UID":   func(r *Request) { r.Owner.Pod.UID = "../../etc" },
		"no interface":  func(r *Request) { r.Interface = "" },
		"bad interface": func(r *Request) { r.Interface = "a/b" },
	} {
		req := request(t, "a", deadNetns, "10.42.0.0/24")
		spoil(&req)
		if _, err := s.Allocate(req); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
