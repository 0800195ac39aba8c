package site

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	// kills is how often kedge is killed.
	kills = 10
	// startSpan and loadSpan are how long after its start, or after the API answered, kedge is killed at the latest.
	startSpan = 6 * time.Second
	loadSpan  = 3 * time.Second
	writers   = 4
)

// seed is of the random moments, the same again with KEDGE_SEED.
func seed(t *testing.T) *rand.Rand {
	n, err := strconv.ParseUint(os.Getenv("KEDGE_SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64()
	}
	t.Logf("KEDGE_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// TestKill kills kedge at random moments: at first while it has never been ready, then in turn while it starts and while it is
// written to. It must start each time, with everything it has acknowledged, below pods that go on.
func TestKill(t *testing.T) {
	s := newScene(t)
	random := seed(t)
	s.killWhileStarting(random, 2)
	s.start()
	s.s1.Apply(pausedPods)
	pods := s.s1.AwaitPods("default", "app=hello", 2)

	ledger := newLedger(s)
	for i := range kills - 2 {
		if i%2 == 0 {
			s.s1.Kill()
			s.killWhileStarting(random, 1)
			s.s1.Start()
		} else {
			s.awaitAPI(time.Now())
			before := ledger.count()
			s.lab.Await("writes", time.Minute, func() error {
				if ledger.count() == before {
					return errors.New("none was acknowledged since the start")
				}
				return nil
			})
			<-time.After(time.Duration(random.Int64N(int64(loadSpan))))
			s.s1.Kill()
			s.s1.Start()
		}
	}
	s.awaitAPI(time.Now())
	s.s1.AwaitReady()
	ledger.close()
	ledger.check()
	s.unchanged(pods)
}

// killWhileStarting starts kedge and kills it, times times; it must not end by itself.
func (s *scene) killWhileStarting(random *rand.Rand, times int) {
	s.Helper()
	for range times {
		moment := time.Duration(random.Int64N(int64(startSpan)))
		s.s1.Start()
		<-time.After(moment)
		if !s.s1.Running() {
			s.Fatalf("kedge ended by itself %v after it was started: %v\n%s", moment, s.s1.AwaitExit(0), s.s1.Log())
		}
		s.s1.Kill()
	}
}

// pausedPods are two pods that want nothing.
const pausedPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: sleep, image: "kedge.local/busybox:1", command: [sleep, "100000"]}
`

// ledger writes ConfigMaps without pause and remembers what was acknowledged.
type ledger struct {
	scene *scene
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu    sync.Mutex
	acked map[string]string // name to value; "" for an acknowledged deletion
	total int
}

func newLedger(s *scene) *ledger {
	ctx, stop := context.WithCancel(s.Context())
	l := &ledger{scene: s, stop: stop, acked: map[string]string{}}
	for i := range writers {
		l.ended.Go(func() { l.write(ctx, fmt.Sprintf("w%d", i)) })
	}
	s.Cleanup(l.close)
	return l
}

func (l *ledger) close() {
	l.stop()
	l.ended.Wait()
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// write creates objects; every second one is changed and every fourth then removed. An operation without an answer may have
// happened or not: its object is forgotten.
func (l *ledger) write(ctx context.Context, prefix string) {
	var client *kubernetes.Clientset
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		if client == nil {
			client, err = l.scene.s1.Client()
		}
		if err == nil {
			l.writeOne(ctx, client.CoreV1().ConfigMaps("default"), fmt.Sprintf("%s-%d", prefix, i), i)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (l *ledger) writeOne(ctx context.Context, maps corev1client.ConfigMapInterface, name string, i int) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := maps.Create(ctx, configMap(name, "created"), metav1.CreateOptions{})
	l.step(name, "created", err)
	if i%2 == 0 {
		_, err = maps.Update(ctx, configMap(name, "changed"), metav1.UpdateOptions{})
		l.step(name, "changed", err)
	}
	if i%4 == 0 {
		l.step(name, "", maps.Delete(ctx, name, metav1.DeleteOptions{}))
	}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"by": "ledger"}}, Data: map[string]string{"value": value},
	}
}

func (l *ledger) step(name, value string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.acked[name]
	switch {
	case err != nil:
		delete(l.acked, name)
	case known || value == "created":
		l.acked[name] = value
		l.total++
	}
}

// check compares what is there with what was acknowledged.
func (l *ledger) check() {
	t := l.scene
	t.Helper()
	client, err := t.s1.Client()
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{LabelSelector: "by=ledger"})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, c := range list.Items {
		there[c.Name] = c.Data["value"]
	}
	bad := 0
	for name, want := range l.acked {
		if there[name] != want {
			bad++
			t.Logf("%s: acknowledged %q, is %q", name, want, there[name])
		}
	}
	t.Logf("%d operations acknowledged on %d objects, %d objects wrong", l.total, len(l.acked), bad)
	if bad > 0 || l.total == 0 {
		t.Error("acknowledged writes are missing, or there were none")
	}
}
