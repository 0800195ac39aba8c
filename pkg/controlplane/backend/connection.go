package backend

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/etcd3/metrics"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/component-base/tracing"
)

// As upstream has them, see storagebackend/factory.
const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	dialTimeout      = 20 * time.Second
	sizeJitter       = 0.5
)

// connection is one to a datastore, with what upstream runs once for all its resources.
type connection struct {
	client    *clientv3.Client
	compactor compactor
	cancel    context.CancelFunc
}

// compactor removes old versions.
type compactor interface {
	CompactRevision() int64
	Stop()
}

// connection is that to the datastore of t.
func (b *Backend) connection(t storagebackend.TransportConfig) (*connection, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := fmt.Sprint(t.ServerList, t.CertFile, t.KeyFile, t.TrustedCAFile)
	if c := b.shared[name]; c != nil {
		return c, nil
	}
	c, err := b.connect(t)
	if err != nil {
		return nil, fmt.Errorf("connect to the datastore: %w", err)
	}
	b.shared[name] = c
	return c, nil
}

func (b *Backend) connect(t storagebackend.TransportConfig) (*connection, error) {
	cfg := clientv3.Config{
		Endpoints: t.ServerList, DialTimeout: dialTimeout, DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithBlock(), //nolint:staticcheck // without it no error comes back when nobody answers
			grpc.WithStatsHandler(otelgrpc.NewClientHandler(
				otelgrpc.WithMessageEvents(otelgrpc.ReceivedEvents, otelgrpc.SentEvents), otelgrpc.WithPropagators(tracing.Propagators()), otelgrpc.WithTracerProvider(t.TracerProvider),
			)),
		},
	}
	if t.CertFile != "" || t.KeyFile != "" || t.TrustedCAFile != "" {
		var err error
		if cfg.TLS, err = (transport.TLSInfo{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.TrustedCAFile}).ClientConfig(); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &connection{client: client, cancel: cancel}
	if b.compaction > 0 {
		c.compactor = etcd3.StartCompactorPerEndpoint(client, b.compaction)
	}
	if b.size > 0 {
		for _, endpoint := range client.Endpoints() {
			go wait.JitterUntilWithContext(ctx, func(ctx context.Context) { reportSize(ctx, client, endpoint) }, b.size, sizeJitter, true)
		}
	}
	return c, nil
}

// reportSize keeps the metric of the datastore's size.
func reportSize(ctx context.Context, client *clientv3.Client, endpoint string) {
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		metrics.UpdateEtcdDbSize(endpoint, -1) // as upstream says it
		return
	}
	metrics.UpdateEtcdDbSize(endpoint, status.DbSize)
}

func (c *connection) close() {
	c.cancel()
	if c.compactor != nil {
		c.compactor.Stop()
	}
	_ = c.client.Close() // the server has stopped
}
