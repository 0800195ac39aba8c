package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/kedge-io/kedge/pkg/kube"
	"github.com/kedge-io/kedge/pkg/supervisor"
)

// Times of the lease. A leader that dies is replaced after leaseTime; one that stops is replaced at once.
const (
	leaseName  = "kedge-controllers"
	leaseTime  = 30 * time.Second
	renewTime  = 20 * time.Second
	renewEvery = 4 * time.Second
)

// LeaderConfig is what a Leader needs to know.
type LeaderConfig struct {
	// Kubeconfig is of an identity that may write Leases.
	Kubeconfig string
	// Node is the name of this server, which no other has: a server that comes back takes its own lease up at once.
	Node string
	// Parts run on one server at a time.
	Parts []supervisor.Component
	// Led is called each time when all parts are ready here; nil for nobody.
	Led func()
	Log *slog.Logger
}

// Leader is the component "controllers": of several servers, one runs the parts. Parts of Kubernetes cannot be started twice in a process, so
// a server that loses the lead leaves it to others, and starts anew when nobody takes it.
type Leader struct {
	cfg    LeaderConfig
	leases coordinationv1client.CoordinationV1Interface
	holder atomic.Pointer[string]
	parts  atomic.Pointer[supervisor.Supervisor] // while this server leads
}

// NewLeader prepares the component; it connects to nothing.
func NewLeader(cfg LeaderConfig) (*Leader, error) {
	rest, err := kube.Config(cfg.Kubeconfig, "controllers")
	if err != nil {
		return nil, err
	}
	rest.Timeout = renewTime / 2
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Leader{cfg: cfg, leases: client.CoordinationV1()}, nil
}

// Name implements supervisor.Component.
func (*Leader) Name() string { return "controllers" }

// Ready implements supervisor.Component: the parts are ready here, or another server leads.
func (l *Leader) Ready(context.Context) error {
	if parts := l.parts.Load(); parts != nil {
		for _, s := range parts.Status() {
			if s.State != supervisor.Ready && !s.Optional {
				return fmt.Errorf("%s: %s %s", s.Name, s.State, s.Reason)
			}
		}
		return nil
	}
	if holder := l.holder.Load(); holder == nil || *holder == "" || *holder == l.cfg.Node {
		return errors.New("no server leads yet")
	}
	return nil
}

// Tell implements supervisor.Teller.
func (l *Leader) Tell() string {
	if l.parts.Load() != nil {
		return "this server leads"
	}
	if holder := l.holder.Load(); holder != nil {
		return *holder + " leads"
	}
	return ""
}

// Run implements supervisor.Component.
func (l *Leader) Run(ctx context.Context) error {
	candidacy, withdraw := context.WithCancel(context.WithoutCancel(ctx))
	defer withdraw()
	var leading atomic.Bool
	stop := context.AfterFunc(ctx, func() {
		if !leading.Load() {
			withdraw()
		}
	})
	defer stop()
	ended := make(chan error, 1)
	leaderelection.RunOrDie(candidacy, leaderelection.LeaderElectionConfig{
		Lock:          l.lock(),
		LeaseDuration: leaseTime, RenewDeadline: renewTime, RetryPeriod: renewEvery, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnNewLeader: func(holder string) { l.holder.Store(&holder) },
			OnStartedLeading: func(held context.Context) {
				leading.Store(true)
				err := l.lead(ctx, held)
				ended <- err
				withdraw() // the lease is given back when the parts have stopped
			},
			OnStoppedLeading: func() {},
		},
	})
	if !leading.Load() {
		return nil
	}
	err := <-ended
	if err != nil || ctx.Err() != nil {
		return err
	}
	return l.retire(ctx)
}

func (l *Leader) lock() resourcelock.Interface {
	return &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName}, Client: l.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.cfg.Node},
	}
}

// lead runs the parts until ctx is done or the lease is lost.
func (l *Leader) lead(ctx, held context.Context) error {
	held, cancel := context.WithCancel(held)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	cfg := supervisor.Config{Log: l.cfg.Log, ReadyTimeout: 5 * time.Minute, OnReady: l.cfg.Led}
	parts := supervisor.New(cfg, supervisor.Group("leader", l.cfg.Parts...))
	l.parts.Store(parts)
	defer l.parts.Store(nil)
	return parts.Run(held)
}

// retire waits for the end after the lead was lost. It fails, which has kedge started anew, when no other server takes the lead though the
// datastore works.
func (l *Leader) retire(ctx context.Context) error {
	l.cfg.Log.Warn("this server lost the lead of the controllers, and leaves it to others")
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	free := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		lease, err := l.leases.Leases(metav1.NamespaceSystem).Get(ctx, leaseName, metav1.GetOptions{})
		if err != nil {
			free = 0
			continue
		}
		if h := lease.Spec.HolderIdentity; h != nil && *h != "" && *h != l.cfg.Node {
			l.holder.Store(h)
		}
		free++
		if lease.Spec.RenewTime != nil && time.Since(lease.Spec.RenewTime.Time) < leaseTime {
			free = 0
		}
		if time.Duration(free)*renewEvery > leaseTime {
			return errors.New("nobody leads the controllers, and this process cannot lead twice: kedge starts anew")
		}
	}
}
