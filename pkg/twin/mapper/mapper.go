// Package mapper runs drivers: it registers with a node's device mapper interface, reads each device at its pace, writes what is wanted,
// and reports. It is a program of its own, kedge mapper, and uses nothing of the node but the socket. Only cli imports it.
package mapper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/kedge-io/kedge/pkg/socket"
	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/twin/mapper/driver"
	"github.com/kedge-io/kedge/pkg/twin/mapper/modbus"
	"github.com/kedge-io/kedge/pkg/twin/mapper/virtual"
	"github.com/kedge-io/kedge/pkg/version"
)

const (
	maxMessage = 4 << 20
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	// callTimeout bounds one report.
	callTimeout = 10 * time.Second
)

// Config says which protocol is driven and where the node is.
type Config struct {
	// Protocol is virtual or modbus.
	Protocol string
	// Name identifies this mapper among those of the node; empty means the protocol.
	Name string
	// Socket is the node's device mapper interface.
	Socket string
	// Address is where this mapper listens; the node must find it under the same path.
	Address string
	Log     *slog.Logger
}

// Mapper is one driver process.
type Mapper struct {
	cfg    Config
	opener driver.Opener
	node   dmi.Manager
	anew   chan struct{} // the node does not know us any more

	mu      sync.Mutex
	ctx     context.Context
	models  map[string]*dmi.DeviceModel
	workers map[string]*worker
}

// Protocols are those that New knows.
func Protocols() []string { return []string{modbus.Protocol, virtual.Protocol} }

// New starts nothing.
func New(cfg Config) (*Mapper, error) {
	m := &Mapper{cfg: cfg, anew: make(chan struct{}, 1), models: map[string]*dmi.DeviceModel{}, workers: map[string]*worker{}}
	switch cfg.Protocol {
	case virtual.Protocol:
		m.opener = virtual.Opener{Log: cfg.Log}
	case modbus.Protocol:
		m.opener = modbus.NewOpener()
	default:
		return nil, fmt.Errorf("there is no driver for the protocol %q", cfg.Protocol)
	}
	if m.cfg.Name == "" {
		m.cfg.Name = cfg.Protocol
	}
	if !filepath.IsAbs(cfg.Socket) || !filepath.IsAbs(cfg.Address) {
		return nil, errors.New("sockets of a mapper have absolute paths")
	}
	return m, nil
}

// Run works until ctx is done.
func (m *Mapper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+m.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return fmt.Errorf("reach %s: %w", m.cfg.Socket, err)
	}
	defer func() { _ = conn.Close() }()
	m.node, m.ctx = dmi.Manager{Conn: conn}, ctx
	listener, err := socket.Listen(m.cfg.Address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	dmi.RegisterMapper(server, m)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer m.stopAll()
	defer server.Stop()
	m.register(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("serve %s: %w", m.cfg.Address, err)
		case <-m.anew:
			if sleep(ctx, lastRetry/2) {
				m.register(ctx)
			}
		}
	}
}

// register asks the node for devices until it answers.
func (m *Mapper) register(ctx context.Context) {
	request := &dmi.MapperRegisterRequest{WithData: true, Mapper: &dmi.MapperInfo{
		Name: m.cfg.Name, Version: version.Get().Version, ApiVersion: "v1beta1", Protocol: m.cfg.Protocol, Address: []byte(m.cfg.Address), State: "ok",
	}}
	said := false
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		ask, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := m.node.MapperRegister(ask, request)
		cancel()
		if err == nil {
			m.takeAll(answer)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if !said {
			m.cfg.Log.Warn("waiting for the node", "socket", m.cfg.Socket, "error", err)
			said = true
		}
		if !sleep(ctx, pause/2+rand.N(pause/2)) {
			return
		}
	}
}

// takeAll makes the devices exactly those of the answer.
func (m *Mapper) takeAll(answer *dmi.MapperRegisterResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, model := range answer.GetModelList() {
		m.models[key(model.GetNamespace(), model.GetName())] = model
	}
	there := map[string]bool{}
	for _, d := range answer.GetDeviceList() {
		there[key(d.GetNamespace(), d.GetName())] = true
		if err := m.take(d); err != nil {
			m.cfg.Log.Warn("device cannot be driven", "device", key(d.GetNamespace(), d.GetName()), "error", err)
		}
	}
	for k, w := range m.workers {
		if !there[k] {
			w.stop()
			delete(m.workers, k)
		}
	}
	m.cfg.Log.Info("registered with the node", "mapper", m.cfg.Name, "devices", len(m.workers))
}

func (m *Mapper) stopAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		w.stop()
	}
}

func key(namespace, name string) string { return namespace + "/" + name }

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// forgotten says whether the node does not know the device, and asks for a new registration then.
func (m *Mapper) forgotten(err error) bool {
	if status.Code(err) != codes.NotFound {
		return false
	}
	select {
	case m.anew <- struct{}{}:
	default:
	}
	return true
}
