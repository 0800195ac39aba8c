package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// settle is how long the list of servers must be still before it is believed: at the start of a server it changes twice.
const settle = time.Second

// FollowerConfig is what the follower needs to know.
type FollowerConfig struct {
	// Client reaches the API; it may read EndpointSlices.
	Client  *rest.Config
	Servers *List
	Log     *slog.Logger
}

// Follower is the component that keeps the list of servers as the Service kubernetes has them.
type Follower struct {
	cfg    FollowerConfig
	client kubernetes.Interface
}

// NewFollower prepares the follower; it does not connect.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if cfg.Client == nil || cfg.Servers == nil || cfg.Log == nil {
		return nil, errors.New("servers: client, list and log are required")
	}
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Follower{cfg: cfg, client: client}, nil
}

// Name implements supervisor.Component.
func (*Follower) Name() string { return "servers" }

// Ready implements supervisor.Component. The list of the last time does until there is news.
func (*Follower) Ready(context.Context) error { return nil }

// Run implements supervisor.Component.
func (f *Follower) Run(ctx context.Context) error {
	news := make(chan struct{}, 1)
	tell := func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(f.client, 0, informers.WithNamespace(metav1.NamespaceDefault),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.LabelSelector = labels.Set{discoveryv1.LabelServiceName: "kubernetes"}.String()
		}))
	slices := factory.Discovery().V1().EndpointSlices()
	if _, err := slices.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
	}); err != nil {
		return fmt.Errorf("watch servers: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		found, err := slices.Lister().List(labels.Everything())
		if err != nil {
			return fmt.Errorf("list servers: %w", err)
		}
		if err := f.cfg.Servers.Found(urls(found)); err != nil {
			f.cfg.Log.Warn("servers not remembered", "error", err)
		}
	}
}

// urls returns the addresses of the ready API servers as URLs.
func urls(slices []*discoveryv1.EndpointSlice) []string {
	var out []string
	for _, s := range slices {
		for _, port := range s.Ports {
			if port.Port == nil || port.Name != nil && *port.Name != "https" {
				continue
			}
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, address := range e.Addresses {
					out = append(out, "https://"+net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	return out
}
