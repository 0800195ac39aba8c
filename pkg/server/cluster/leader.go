package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

const leaseName = "kedge-controllers"

// Times of the lease. A leader that dies is replaced after Lease; one that stops is replaced at once.
type Times struct {
	Lease time.Duration // how long the others wait for a leader that is silent
	Renew time.Duration // how long a leader tries before it gives up, less than Lease
	Retry time.Duration // between attempts
}

// LeaderTimes reads the times from the arguments of kube-controller-manager that are about them, as flag=value. Those that are not given have
// kedge's own value, or follow the lease.
func LeaderTimes(args []string) (Times, error) {
	const flag = "leader-elect-"
	given := map[string]time.Duration{}
	for _, a := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		name, about := strings.CutPrefix(name, flag)
		if !about || name != "lease-duration" && name != "renew-deadline" && name != "retry-period" {
			continue
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < 100*time.Millisecond {
			return Times{}, fmt.Errorf("--kube-controller-manager-arg: %s%s=%q is no time, as 30s", flag, name, value)
		}
		given[name] = d
	}
	t := Times{Lease: cmp.Or(given["lease-duration"], 30*time.Second)}
	t.Renew = cmp.Or(given["renew-deadline"], t.Lease*2/3)
	t.Retry = cmp.Or(given["retry-period"], t.Lease*2/15)
	if t.Lease < time.Second || t.Renew >= t.Lease || float64(t.Retry)*leaderelection.JitterFactor >= float64(t.Renew) {
		return Times{}, fmt.Errorf("--kube-controller-manager-arg: %slease-duration=%s must be a second at least and more than %srenew-deadline=%s, and that more than %sretry-period=%s and a fifth",
			flag, t.Lease, flag, t.Renew, flag, t.Retry)
	}
	return t, nil
}

// LeaderConfig is what a Leader needs to know.
type LeaderConfig struct {
	// Kubeconfig is of an identity that may write Leases.
	Kubeconfig string
	// Node is the name of this server, which no other has: a server that comes back takes its own lease up at once.
	Node string
	// Times are those of LeaderTimes, alike on all servers.
	Times Times
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
	rest.Timeout = cfg.Times.Renew / 2
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
	lock := l.lock()
	leaderelection.RunOrDie(candidacy, leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: l.cfg.Times.Lease, RenewDeadline: l.cfg.Times.Renew, RetryPeriod: l.cfg.Times.Retry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnNewLeader: func(holder string) { l.holder.Store(&holder) },
			OnStartedLeading: func(held context.Context) {
				leading.Store(true)
				err := l.lead(ctx, held, lock)
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

func (l *Leader) lock() *observedLock {
	return &observedLock{Interface: &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: leaseName}, Client: l.leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.cfg.Node},
	}}
}

// observedLock remembers what the lease was when this process last saw it.
type observedLock struct {
	resourcelock.Interface
	renewed atomic.Pointer[time.Time] // when the last renewal was begun
	foreign atomic.Bool               // somebody else has it
}

// Get implements resourcelock.Interface.
func (o *observedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := o.Interface.Get(ctx)
	if err == nil {
		o.foreign.Store(record.HolderIdentity != o.Identity())
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (o *observedLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return o.note(time.Now(), o.Interface.Create(ctx, r))
}

// Update implements resourcelock.Interface. A server that stood still for longer than the lease gives back only what is still its own: the election
// looks at the lease before it releases it, but not at who has it.
func (o *observedLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" && o.foreign.Load() {
		return errors.New("another server has the lease")
	}
	return o.note(time.Now(), o.Interface.Update(ctx, r))
}

func (o *observedLock) note(begun time.Time, err error) error {
	if err == nil {
		o.renewed.Store(&begun)
		o.foreign.Store(false)
	}
	return err
}

// lost says whether the lease may be another's by now.
func (o *observedLock) lost(lease time.Duration) bool {
	renewed := o.renewed.Load()
	return o.foreign.Load() || renewed == nil || time.Since(*renewed) >= lease
}

// guard calls stop when the lease is lost. The election alone would first try to get it back, and meanwhile two servers would lead: as when
// this process was stopped for longer than the lease and goes on.
func (l *Leader) guard(ctx context.Context, lock *observedLock, stop func()) {
	tick := time.NewTicker(l.cfg.Times.Retry / 4)
	defer tick.Stop()
	for ctx.Err() == nil && !lock.lost(l.cfg.Times.Lease) {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	stop()
}

// lead runs the parts until ctx is done or the lease is lost.
func (l *Leader) lead(ctx, held context.Context, lock *observedLock) error {
	held, cancel := context.WithCancel(held)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	go l.guard(held, lock, cancel)
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
	tick := time.NewTicker(l.cfg.Times.Retry)
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
		if lease.Spec.RenewTime != nil && time.Since(lease.Spec.RenewTime.Time) < l.cfg.Times.Lease {
			free = 0
		}
		if time.Duration(free)*l.cfg.Times.Retry > l.cfg.Times.Lease {
			return errors.New("nobody leads the controllers, and this process cannot lead twice: kedge starts anew")
		}
	}
}
