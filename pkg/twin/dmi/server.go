// Package dmi serves drivers over the device mapper interface, gRPC on unix sockets of the node: a driver registers, is told of its devices
// and what is wanted of them, and reports. It speaks the protocol of the family, so that drivers written for it work. Rooms of twin import it.
package dmi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	dmi "github.com/kedge-io/kedge/pkg/twin/dmi/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kedge-io/kedge/pkg/apis/devices/v1beta1"
	"github.com/kedge-io/kedge/pkg/socket"
	"github.com/kedge-io/kedge/pkg/twin/dmi/wire"
	"github.com/kedge-io/kedge/pkg/twin/hub"
)

const (
	// maxMessage bounds what a driver may send at once, and what it is sent.
	maxMessage = 4 << 20
	// maxStreams bounds what one connection may do at a time.
	maxStreams = 64
	// maxMappers bounds how many drivers may be registered.
	maxMappers = 64
	// maxText bounds names and addresses in a registration.
	maxText = 253
)

// Config says where the server listens.
type Config struct {
	Hub *hub.Hub
	// Sockets are paths; every one serves the same.
	Sockets []string
	Log     *slog.Logger
}

// Server is the manager's end of the interface.
type Server struct {
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session // by name of the mapper
	ctx      context.Context     // of Run
	running  sync.WaitGroup
}

// New starts nothing.
func New(cfg Config) (*Server, error) {
	if len(cfg.Sockets) == 0 {
		return nil, errors.New("device mapper interface: no socket to listen on")
	}
	return &Server{cfg: cfg, sessions: map[string]*session{}}, nil
}

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams))
	dmi.RegisterManager(server, s)
	defer func() {
		cancel()
		server.Stop()
		s.running.Wait()
	}()
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	if err := s.restore(); err != nil {
		return err
	}
	failed := make(chan error, len(s.cfg.Sockets))
	for _, path := range s.cfg.Sockets {
		l, err := socket.Listen(path)
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(path) }()
		go func() { failed <- server.Serve(l) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serve device mapper interface: %w", err)
	}
}

// MapperRegister takes up a driver, or takes it up anew.
func (s *Server) MapperRegister(_ context.Context, r *dmi.MapperRegisterRequest) (*dmi.MapperRegisterResponse, error) {
	m, err := mapperOf(r.GetMapper())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ses, err := s.open(m)
	if err != nil {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	out := &dmi.MapperRegisterResponse{}
	if r.GetWithData() {
		out.ModelList, out.DeviceList = ses.everything()
	}
	ses.begin()
	s.cfg.Log.Info("driver registered", "mapper", m.Name, "protocol", m.Protocol, "devices", len(out.DeviceList))
	return out, nil
}

// mapper is a driver as it is kept on disk.
type mapper struct {
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	// Models and Devices hold a checksum of what the driver was told last, by key.
	Models  map[string]uint64 `json:"models,omitempty"`
	Devices map[string]uint64 `json:"devices,omitempty"`
}

func mapperOf(i *dmi.MapperInfo) (mapper, error) {
	m := mapper{Name: i.GetName(), Version: i.GetVersion(), Protocol: i.GetProtocol(), Models: map[string]uint64{}, Devices: map[string]uint64{}}
	m.Address = strings.TrimPrefix(string(i.GetAddress()), "unix://")
	switch {
	case m.Protocol == "" || len(m.Protocol) > maxText:
		return m, fmt.Errorf("mapper.protocol: want 1 to %d characters", maxText)
	case len(m.Name) > maxText || len(m.Version) > maxText:
		return m, fmt.Errorf("mapper.name, mapper.version: want at most %d characters", maxText)
	case !filepath.IsAbs(m.Address) || filepath.Clean(m.Address) != m.Address || len(m.Address) > 107:
		return m, errors.New("mapper.address: want the absolute path of the mapper's own unix socket")
	}
	if m.Name == "" {
		m.Name = m.Protocol
	}
	return m, nil
}

// ReportDeviceStatus takes over what a driver found.
func (s *Server) ReportDeviceStatus(_ context.Context, r *dmi.ReportDeviceStatusRequest) (*dmi.ReportDeviceStatusResponse, error) {
	var readings []hub.Reading
	for _, t := range r.GetReportedDevice().GetTwins() {
		readings = append(readings, hub.Reading{
			Property: t.GetPropertyName(), Reported: reported(t.GetReported()), Observed: wire.FromValue(t.GetObservedDesired()),
		})
	}
	if err := s.cfg.Hub.Report(s.key(r.GetDeviceNamespace(), r.GetDeviceName()), readings); err != nil {
		return nil, asStatus(err)
	}
	return &dmi.ReportDeviceStatusResponse{}, nil
}

// reported is nil when the driver said nothing; a value that is empty and has a time stamp is a value.
func reported(v *dmi.TwinProperty) *v1beta1.Value { return wire.FromValue(v) }

// ReportDeviceStates takes over how a device is.
func (s *Server) ReportDeviceStates(_ context.Context, r *dmi.ReportDeviceStatesRequest) (*dmi.ReportDeviceStatesResponse, error) {
	if err := s.cfg.Hub.ReportState(s.key(r.GetDeviceNamespace(), r.GetDeviceName()), r.GetState()); err != nil {
		return nil, asStatus(err)
	}
	return &dmi.ReportDeviceStatesResponse{}, nil
}

// key takes the namespace default for drivers that know of none.
func (s *Server) key(namespace, name string) string {
	if namespace == "" {
		namespace = "default"
	}
	return hub.Key(namespace, name)
}

func asStatus(err error) error {
	switch {
	case errors.Is(err, hub.ErrUnknownDevice), errors.Is(err, hub.ErrUnknownProperty):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, hub.ErrRefused):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
